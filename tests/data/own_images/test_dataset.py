"""Own images: what is found, how it is divided, when it is decoded anew, and everything that is refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import encoded, make_classes, make_divided, noise
from torchreptile.core.config import Config, TaskConfig
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.loading import load_splits
from torchreptile.data.own_images import dataset as folder
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.data.splits import SPLITS, Splits


@pytest.fixture(autouse=True)
def cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path / "cache"))


def own(root: Path, **changes: object) -> Splits:
    return load_splits(Config().replace(data=str(root), image_size=12, way=2, **changes).task)


def names(splits: Splits) -> dict[str, tuple[str, ...]]:
    return {split: splits.get(split).class_names for split in SPLITS if splits.has(split)}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return make_classes(tmp_path / "animals", [f"c{n:02d}" for n in range(20)], images=3)


def test_one_root_is_divided_by_classes_and_seed(classes: Path) -> None:
    parts = names(own(classes))
    assert [len(parts[split]) for split in SPLITS] == [12, 4, 4]
    assert len({name for part in parts.values() for name in part}) == 20
    assert names(own(classes)) == parts
    assert names(own(classes, split_seed=1)) != parts
    assert [len(part) for part in names(own(classes, split_ratio="0.5/0.25/0.25")).values()] == [10, 5, 5]
    without = own(classes, split_ratio="0.7/0/0.3")
    assert (len(without.train), without.val, len(without.test)) == (14, None, 6)
    with pytest.raises(DataError, match=r"split_ratio 0.7/0/0.3 has no val classes; take train or test"):
        without.get("val")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_classes_are_divided_as_far_as_they_go(count: int, tmp_path: Path) -> None:
    splits = own(make_classes(tmp_path / "few", [f"c{n}" for n in range(count)], images=2))
    parts = names(splits)
    assert sorted(name for part in parts.values() for name in part) == [f"c{n}" for n in range(count)]
    assert set(parts) == {1: {"train"}, 2: {"train", "test"}}.get(count, set(SPLITS))


def test_pixels_are_those_of_the_files(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "own", {"train": 3, "test": 2}, images=2)
    splits = own(root)
    assert names(splits) == {"train": ("train00", "train01", "train02"), "test": ("test00", "test01")}
    assert splits.train.image_shape == (3, 12, 12)
    wanted = np.asarray(Image.open(root / "train/train01/01.png")).transpose(2, 0, 1)
    assert np.array_equal(splits.train.images[3].numpy(), wanted)
    assert own(root, grey=True).train.image_shape == (1, 12, 12)


def test_default_sizes() -> None:
    assert TaskConfig(data="x").own_image_size == 84
    assert TaskConfig(data="x", grey=True).own_image_size == 28
    assert TaskConfig(data="x", image_size=64).own_image_size == 64


def test_only_test_classes_are_enough_to_measure(tmp_path: Path) -> None:
    splits = own(make_divided(tmp_path / "own", {"test": 3}))
    assert len(splits.test) == 3
    with pytest.raises(DataError, match="has no train classes; take test"):
        splits.get("train")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    parts = names(own(make_classes(tmp_path / "vehicles", ["train", "test", "bus", "car", "bike"])))
    assert sorted(name for part in parts.values() for name in part) == ["bike", "bus", "car", "test", "train"]


def test_hidden_files_and_notes_beside_classes_are_passed_over(classes: Path) -> None:
    for name in (".DS_Store", "c00/.DS_Store", "c01/Thumbs.db", "README.txt"):
        (classes / name).write_bytes(b"?")
    (classes / ".git").mkdir()
    found = folder.scan(classes)
    assert set(found.skipped) == {".DS_Store", ".git", "c00/.DS_Store", "c01/Thumbs.db"}
    assert len(found.classes) == 20


def test_what_operating_systems_leave_is_passed_over_in_any_case(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "own", {"train": 2, "test": 2}, images=2)
    leftovers = ("__MACOSX/train/train00/00.png", "thumbs.db", "train/train00/THUMBS.DB", "train/Desktop.ini")
    for name in (*leftovers, "test/test00/.DS_Store", "train/@eaDir/train00/00.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"?")
    assert names(own(root)) == {"train": ("train00", "train01"), "test": ("test00", "test01")}


def test_the_folders_of_the_splits_may_have_capital_letters(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "own", {"train": 2, "test": 2}, images=2)
    (root / "train").rename(root / "Train")
    (root / "test").rename(root / "TEST")
    assert names(own(root)) == {"train": ("train00", "train01"), "test": ("test00", "test01")}
    make_classes(root / "train", ["more"], images=2)
    with pytest.raises(DataError, match="train and Train are both the folder train; join them"):
        own(root)


def test_backslashes_and_capital_splits_in_a_csv_are_understood(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "own", ["x", "y"], images=2)
    rows = [rf"{c}\{n:02d}.png,{c},{split}" for c, split in (("x", "Train"), ("y", "TEST")) for n in range(2)]
    assert names(own(csv(root, "file,label,split\n" + "\n".join(rows)))) == {"train": ("x",), "test": ("y",)}


@pytest.mark.parametrize(("shape", "wanted"), [("3x6x12", (3, 6, 12)), ("1x12x4", (1, 12, 4))])
def test_pictures_that_are_not_square_are_cropped_to_their_proportions(
    shape: str, wanted: tuple[int, ...], tmp_path: Path
) -> None:
    """A picture of the size asked for is its own pixels; of a larger one the middle is taken, not the whole."""
    channels, height, width = wanted
    pixels = np.random.default_rng(0).integers(0, 256, (6, height, width, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        folder = tmp_path / "own" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        taller = np.concatenate([np.zeros_like(picture), picture, np.zeros_like(picture)])
        Image.fromarray(picture if number < 4 else taller).save(folder / f"{number}.png")
    task = Config().replace(data=str(tmp_path / "own"), shape=shape, split_ratio="1/0/0", way=2).task
    store = load_splits(task).train
    assert store.image_shape == wanted
    expected = pixels[[0, 2, 4, 1, 3, 5]].transpose(0, 3, 1, 2)
    if channels == 1:
        expected = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in pixels[[0, 2, 4, 1, 3, 5]]])[:, None]
    assert np.array_equal(store.images.numpy(), expected)


def test_pictures_that_show_nearly_nothing_are_refused_by_name(tmp_path: Path) -> None:
    """Masks of 0 and 1, and values of 8 or 12 bits in a file of 16, would all be taken for black."""
    root = make_classes(tmp_path / "own", ["a", "b"], images=2)
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(root / "a" / "black.png")  # what is black is black
    assert own(root, split_ratio="1/0/0").train.class_sizes.tolist() == [3, 2]
    Image.fromarray(np.eye(12, dtype=np.uint8)).save(root / "a" / "mask.png")
    with pytest.raises(DataError, match=r"1 problem: a/mask.png: nearly black \(brightest value 1 of 255\); stretch"):
        own(root, split_ratio="1/0/0").train  # noqa: B018
    Image.fromarray(np.full((12, 12), 4095, np.uint16)).save(root / "b" / "bits.png")
    with pytest.raises(DataError, match=r"1 problem: b/bits.png: its brightest grey is 4095 of 65535, so it would be"):
        own(root, split_ratio="1/0/0").train  # noqa: B018


def test_links_to_files_are_followed(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "own", {"train": 2, "test": 2})
    os.symlink(root / "train/train00/00.png", root / "train/train01/link.png")
    assert own(root).train.class_sizes.tolist() == [6, 7]


def test_classes_of_different_sizes_are_sampled_within_their_own_images(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "own", {"train": 3, "test": 2}, images=3)
    for number in range(9):
        noise(number).save(root / "train/train01" / f"more{number}.png")
    store = own(root).train
    assert store.class_sizes.tolist() == [3, 12, 3]
    drawn = EpisodeSampler(store, way=2, shots=2, queries=1).sample(200, torch.Generator().manual_seed(0))
    for label in range(2):
        for task in range(200):
            of_class = store.images[store.class_starts[drawn.classes[task, label]] :][
                : store.class_sizes[drawn.classes[task, label]]
            ]
            query = (drawn.query_x[task, label] * 255).round().to(torch.uint8)
            assert (of_class == query).flatten(1).all(1).any()
    with pytest.raises(
        DataError, match=r"class train00 of own \(train\) has 3 images; 3 shots \+ 1 queries need 4 .*too few"
    ):
        EpisodeSampler(store, way=2, shots=3, queries=1)


def test_decoded_once_and_anew_when_a_file_or_setting_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_divided(tmp_path / "own", {"train": 2, "test": 2})
    decoded: list[int] = []
    monkeypatch.setattr(
        folder, "decode_all", lambda pictures, *rest: decoded.append(len(pictures)) or before(pictures, *rest)
    )
    first = own(root).train.fingerprint
    assert own(root).train.fingerprint == first
    assert decoded == [24]
    own(root, resize="nearest").train  # noqa: B018
    assert len(decoded) == 2
    noise(5).save(root / "train/train00/00.png")
    changed = own(root).train.fingerprint
    assert changed != first
    (root / "train/train00/05.png").unlink()
    assert own(root).train.class_sizes.tolist() == [5, 6]
    assert decoded == [24, 24, 24, 23]


before = folder.decode_all


def csv(root: Path, text: str) -> Path:
    file = root / "labels.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_csv_lists_files_labels_and_splits(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "own", ["x", "y"], images=3)
    rows = [f"{c}/{n:02d}.png,{label},{split}" for c, label, split in (("x", "a, b", "train"), ("y", "ü", "test"))
            for n in range(3)]  # fmt: skip
    file = csv(root, "\ufefffilename,label,split\n" + "\n".join(rows).replace("a, b", '"a, b"') + "\n\n")
    assert names(own(file)) == {"train": ("a, b",), "test": ("ü",)}
    undivided = csv(root, "label,note,file\na,?,x/00.png\na,?,x/01.png\nb,?,y/00.png\n")
    assert {name for part in names(own(undivided)).values() for name in part} == {"a", "b"}


Damage = Callable[[Path], Path | None]


def writes(name: str, content: bytes) -> Damage:
    """Put a file into train/train00 or where ``name`` says."""

    def damage(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return damage


def lists(text: str) -> Damage:
    return lambda root: csv(root, text)


def links(name: str, target: str) -> Damage:
    return lambda root: os.symlink(root / target, root / name)


PNG = encoded(noise(77))
# What is done to a divided folder, and what must be said; a csv that is made is used in its place.
REFUSED: dict[str, tuple[Damage, str]] = {
    "no such folder": (lambda root: root / "nowhere", "nowhere does not exist"),
    "an archive": (
        lambda root: writes("a.zip", b"PK")(root) or root / "a.zip",
        "neither a folder nor a .csv file; unpack",
    ),
    "an empty folder": (lambda root: (root / "e").mkdir() or root / "e", "no class folders; put the pictures of each"),
    "a file that is no picture": (
        writes("train/train00/notes.txt", b"?"),
        r"1 problem: train/train00/notes.txt: not a picture by its name \(those end in .png",
    ),
    "a text called png": (
        writes("train/train00/t.png", b"?"),
        "1 problem: train/train00/t.png: not a picture, or damaged at its start",
    ),
    "an empty picture": (writes("test/test00/z.png", b""), "1 problem: test/test00/z.png: the file is empty"),
    "half a picture": (writes("test/test00/z.png", PNG[:300]), "test/test00/z.png: the file is damaged"),
    "an empty class": (lambda root: (root / "train/none").mkdir(), "train/none is a class without pictures; remove"),
    "a loose picture": (writes("train/loose.png", PNG), "train/loose.png is a picture in a split itself; put it into"),
    "a picture in the root": (writes("loose.png", PNG), "loose.png is a picture in the data folder itself"),
    "a folder in a class": (writes("train/train00/deep/p.png", PNG), "train/train00/deep: a folder, not a picture"),
    "a class beside the splits": (
        writes("cat/p.png", PNG),
        "cat is a folder next to train and test; put it into train or",
    ),
    "a misnamed split": (writes("valid/cat/p.png", PNG), "valid is a folder next to train and test; rename it to val"),
    "a class in two splits": (
        writes("test/train01/p.png", PNG),
        "1 problem: class train01 is in train and test; a class must be in one split only",
    ),
    "a link to nothing": (links("train/train00/l.png", "gone.png"), "train/train00/l.png: a broken link"),
    "a link to a folder": (links("train/l", "test/test00"), "train/l is a link to a folder; only links to files are"),
    "a link to a folder in a class": (
        links("train/train00/l.png", "test"),
        "train/train00/l.png: a link to a folder, not",
    ),
    "a pipe": (
        lambda root: os.mkfifo(root / "train/train00/p.png"),
        "train/train00/p.png: neither a file nor a folder",
    ),
    "a csv without a header": (lists("train/train00/00.png,a\n"), "must name the columns file and label"),
    "an empty csv": (lists(""), "its first line has nothing; it must name the columns file and label"),
    "a csv without rows": (lists("file,label\n"), "lists no pictures"),
    "a csv that leads out": (lists("file,label\n../x.png,a\n"), "line 2: '../x.png' is outside .*; files must be in"),
    "a csv with an absolute path": (lists("file,label\n/etc/x.png,a\n"), "line 2: '/etc/x.png' is outside"),
    "a file name that is not UTF-8": (
        lambda root: (root / "train/train00/00.png").rename(root / "train/train00" / os.fsdecode(b"\xff.png")) and None,
        r"train/train00/\?.png: its name is not UTF-8; rename it",
    ),
    "a class name that is not UTF-8": (
        lambda root: (root / "train/train00").rename(root / "train" / os.fsdecode(b"\xff")) and None,
        r"train/\? has a name that is not UTF-8; rename it",
    ),
    "a csv that leads out by a link": (
        lambda root: os.symlink("/etc", root / "etc") or csv(root, "file,label\netc/x.png,a\n"),
        "line 2: 'etc/x.png' is outside",
    ),
    "a csv with a missing file": (lists("file,label\nx.png,a\n"), "line 2: x.png: No such file or directory"),
    "a csv with a folder": (lists("file,label\ntrain,a\n"), "line 2: train: a folder, not a picture"),
    "a csv without a label": (lists("file,label\ntrain/train00/00.png\n"), "line 2: train/train00/00.png has no label"),
    "a csv without a file": (lists("file,label\n,a\n"), "line 2: no file has label a; a row needs both"),
    "a csv with an unknown split": (
        lists("file,label,split\ntrain/train00/00.png,a,training\n"),
        "line 2: split is 'training' for train/train00/00.png; it must be one of train, val, test",
    ),
    "a csv with a class in two splits": (
        lists("file,label,split\ntrain/train00/00.png,a,train\ntrain/train00/01.png,a,test\n"),
        "1 problem: class a is in train and test",
    ),
    "a csv that repeats a file": (
        lists("file,label\ntrain/train00/00.png,a\ntrain/train00/00.png,b\n"),
        "line 3: train/train00/00.png is listed in line 2 already",
    ),
    "a csv that repeats a file by another path": (
        lists("file,label\ntrain/train00/00.png,a\ntrain/../train/train00/00.png,b\n"),
        "line 3: train/../train/train00/00.png is listed in line 2 already",
    ),
    "a csv in another encoding": (
        lambda root: writes("l.csv", b"file,label\n\xff\xfe,a\n")(root) or root / "l.csv",
        "not a csv file in UTF-8",
    ),
    "a csv with a comma in a label": (
        lists('file,label\ntrain/train00/00.png,dog, young\ntrain/train00/01.png,"dog, old"\n'),
        "1 problem: line 2 has 3 columns, but line 1 names 2; put a value that holds a comma in double quotes",
    ),
    "a csv with commas in several labels": (
        lists("file,label\nx.png,a,b\nx.png,c,d,e\n"),
        "2 problems: line 2 has 3 columns, but line 1 names 2; put .*; line 3 has 4 columns, but line 1 names 2$",
    ),
    "a csv with a space before the quote": (
        lists('file, label\ntrain/train00/00.png, "dog, young"\n'),
        "line 2 has 3 columns, but line 1 names 2; .* without a space before them",
    ),
    "a csv with semicolons": (
        lists("file;label\ntrain/train00/00.png;a\n"),
        "first line has 'file;label'; it must name the columns file and label; its columns are separated by semicolons",
    ),
    "a csv with tabs": (lists("file\tlabel\ntrain/train00/00.png\ta\n"), "its columns are separated by tabs: separate"),
    "a csv with two columns label": (
        lists("file,label,Label\nx.png,a,b\n"),
        "names the column label twice; name it onc",
    ),
    "an unclosed quote": (lists('file,label\n"x,a\n'), "not a csv file in UTF-8"),
    "a NUL": (lists("file,label\nx\0.png,a\n"), "is outside|not a csv file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_refused_by_name(what: str, tmp_path: Path) -> None:
    damage, message = REFUSED[what]
    root = make_divided(tmp_path / "own", {"train": 2, "test": 2}, images=2)
    used = damage(root) or root
    with pytest.raises(DataError, match=message) as refused:
        own(used).get("train")
    assert "\n" not in str(refused.value)


def test_every_bad_file_is_named(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "own", {"train": 2, "test": 2})
    for number in range(3):
        (root / "train/train00" / f"bad{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 problems: .*bad0.png: .*bad1.png: .*bad2.png: the file is empty"):
        own(root).train  # noqa: B018
    for number in range(150):
        (root / "test/test00" / f"note{number}.txt").write_bytes(b"")
    with pytest.raises(DataError, match=r"150 problems: .*; and 50 more$"):
        own(root)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "folder"}, "dataset is folder, but data is not set; give --data FOLDER or FILE.csv"),
        ({"grey": True}, "grey is True, but it applies to your own images only; give --data"),
        ({"image_size": 32}, "image_size is 32, but it applies to your own images only"),
        ({"split_ratio": "1/0/0"}, "split_ratio is 1/0/0, but it applies to your own images only"),
        ({"data": "x", "image_size": 3}, "image_size is 3; it must be at least 4"),
        ({"data": "x", "image_size": 5000}, "image_size is 5000; it must be at most 1024"),
        ({"data": "x", "image_size": -1}, "image_size is -1; it must be at least 4"),
        ({"data": "x", "split_ratio": "0.6/0.4"}, "split_ratio is 0.6/0.4; it must be three shares that add up to 1"),
        ({"data": "x", "split_ratio": "0.6/0.6/-0.2"}, "it must be three shares"),
        ({"data": "x", "split_ratio": "64/16/20"}, "it must be three shares that add up to 1, such as 0.6/0.2/0.2"),
        ({"data": "x", "split_ratio": "a/b/c"}, "it must be three shares"),
        ({"data": "x", "split_ratio": "nan/0/1"}, "it must be three shares"),
        ({"data": "x", "shape": "32x64x3x1"}, "shape is 32x64x3x1; it must be channels x height x width, such as"),
        ({"data": "x", "shape": "3x32x64", "image_size": 32}, "image_size is 32, but shape is 3x32x64; give one of"),
        ({"shape": "3x32x64"}, "shape is 3x32x64, but it applies to your own images only"),
        ({"data": "x", "shape": "3x0x64"}, "shape is 3x0x64; every number must be at least 1"),
        ({"data": "x", "resize": "bilinear"}, "it must be one of nearest, bicubic, lanczos, auto"),
        ({"data": "x", "split_scheme": "vinyals"}, "'vinyals' does not exist for folder; choose one of own"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_splits(Config().replace(**settings).task)


@pytest.mark.parametrize("shape", ["6x128", "5x8x8"])
def test_pictures_are_no_series_and_have_one_or_three_channels(shape: str, tmp_path: Path) -> None:
    root = make_divided(tmp_path / "own", {"train": 2, "test": 2}, images=1)
    with pytest.raises(ConfigError, match=f"shape is {shape}, but .* holds pictures, of 1 or 3 channels"):
        load_splits(Config().replace(data=str(root), shape=shape).task)


def test_a_ratio_for_images_that_are_divided_is_refused(tmp_path: Path) -> None:
    root = make_divided(tmp_path / "own", {"train": 2, "test": 2})
    with pytest.raises(
        ConfigError, match=r"split_ratio is 0.8/0/0.2, but .*own is divided into train, val and test already"
    ):
        own(root, split_ratio="0.8/0/0.2")


def test_the_path_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = Config().replace(data="pictures/flowers").task
    assert (task.dataset, task.data, task.title) == ("folder", str(tmp_path / "pictures/flowers"), "flowers")
