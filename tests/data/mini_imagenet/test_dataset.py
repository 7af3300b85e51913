"""mini-ImageNet: a tiny one in every form gives the same pixels; everything wrong is named, all of it."""

from __future__ import annotations

import io
import os
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from torchreptile.cli.commands import data_prepare as preparing
from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import DataError
from torchreptile.core.paths import cache_dir
from torchreptile.data.image_store import ImageStore
from torchreptile.data.loading import load_splits
from torchreptile.data.mini_imagenet import dataset as mini_imagenet
from torchreptile.data.mini_imagenet.dataset import BrokenError, Expected
from torchreptile.data.splits import SPLITS, Split, Splits

SIDE, IMAGES = 8, 3
CLASSES: dict[Split, list[str]] = {
    "train": ["n00000001", "n00000002", "n00000005"],
    "val": ["n00000003", "n00000007"],
    "test": ["n00000004", "n00000006"],
}
PLACES = (2, 10, 11)  # of the pictures in their classes; as text they would come in another order


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """mini-ImageNet has 3, 2 and 2 classes of 3 pictures."""
    expected = Expected({split: len(names) for split, names in CLASSES.items()}, IMAGES, SIDE)
    monkeypatch.setattr(mini_imagenet, "official", lambda: expected)


# ---------------------------------------------------------------------------------------------- the tiny set


def pixels(label: str, place: int, side: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """(H, W, 3): the picture number ``place`` of a class."""
    seed = int(label[1:]) * 100 + place
    return np.random.default_rng(seed).integers(0, 256, (*side, 3), dtype=np.uint8)


def picture(array: np.ndarray, mode: str = "RGB") -> bytes:
    """As a PNG, whose pixels are exact, whatever its name says."""
    stream = io.BytesIO()
    Image.fromarray(array).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def listed(label: str) -> list[str]:
    return [f"{label}{place:08d}.jpg" for place in PLACES]


def files(split: Split) -> dict[str, bytes]:
    """File name -> content, as the list names them."""
    return {
        name: picture(pixels(label, place))
        for label in CLASSES[split]
        for name, place in zip(listed(label), PLACES, strict=True)
    }


def write_list(folder: Path, split: Split) -> None:
    lines = [f"{name},{label}" for label in CLASSES[split] for name in listed(label)]
    (folder / f"{split}.csv").write_text("\n".join(["filename,label", *lines, ""]))


def write_files(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_tar(
    path: Path, contents: dict[str, bytes], mode: str = "w:xz", extra: tuple[tarfile.TarInfo, ...] = ()
) -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in extra:
            tar.addfile(info)


def as_images(folder: Path) -> None:
    for split in SPLITS:
        write_list(folder, split)
        write_files(folder / "images", files(split))


def as_tars(folder: Path) -> None:
    for split, kind in zip(SPLITS, ("xz", "gz", ""), strict=True):
        write_list(folder, split)
        contents = {f"images/{name}": content for name, content in reversed(files(split).items())}
        write_tar(folder / f"images-{split}.tar{'.' * bool(kind)}{kind}", contents, f"w:{kind}")


def as_folders(folder: Path) -> None:
    for split in SPLITS:
        for name, content in files(split).items():
            write_files(folder / split / name[:9], {name.replace(".jpg", ".JPEG"): content, ".DS_Store": b"x"})


def arrays(split: Split) -> np.ndarray:
    return np.stack([pixels(label, place) for label in CLASSES[split] for place in PLACES])


def as_cache(folder: Path) -> None:
    for split in SPLITS:
        count = range(len(CLASSES[split]))
        classes = {
            label: [IMAGES * i + j for j in range(IMAGES)] for i, label in zip(count, CLASSES[split], strict=True)
        }
        content = {"image_data": arrays(split), "class_dict": classes}
        (folder / f"mini-imagenet-cache-{split}.pkl").write_bytes(pickle.dumps(content))


def as_phases(folder: Path) -> None:
    for split, name in zip(SPLITS, ("train_phase_train", "val", "test"), strict=True):
        labels = [10 + i for i in range(len(CLASSES[split])) for _ in range(IMAGES)]
        content = {
            "data": arrays(split),
            "labels": labels,
            "catname2label": {label: 10 + i for i, label in enumerate(CLASSES[split])},
        }
        (folder / f"miniImageNet_category_split_{name}.pickle").write_bytes(pickle.dumps(content, protocol=2))


def as_imagenet(folder: Path) -> None:
    """Twelve pictures in every class, whose numbers are no places and have no leading zeros."""
    for split in SPLITS:
        write_list(folder, split)
        for label in CLASSES[split]:
            numbers = [7 * place for place in range(1, 13)]
            write_files(
                folder / "train" / label,
                {f"{label}_{number}.JPEG": picture(pixels(label, number // 7)) for number in numbers},
            )


FORMS = [as_images, as_tars, as_folders, as_cache, as_phases, as_imagenet]


def check(store: ImageStore, split: Split) -> None:
    assert store.class_names == tuple(CLASSES[split])
    assert store.class_sizes.tolist() == [IMAGES] * len(CLASSES[split])
    assert torch.equal(store.images, torch.from_numpy(arrays(split)).permute(0, 3, 1, 2))


def splits(folder: Path, resize: str = "auto") -> Splits:
    return load_splits(TaskConfig(dataset="mini-imagenet", data_root=str(folder), resize=resize))


# ---------------------------------------------------------------------------------------------- what works


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels(tmp_path: Path, form: Callable[[Path], None]) -> None:
    form(tmp_path)
    found = splits(tmp_path)
    for split in SPLITS:
        check(found.get(split), split)
        assert found.get(split).name == "mini-imagenet"
        names = found.get(split).image_names
        if form in (as_images, as_tars):
            assert names == tuple(name for label in CLASSES[split] for name in listed(label))
        else:
            assert len(names) == (0 if form in (as_cache, as_phases) else len(found.get(split).images))


def test_the_folder_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mini-imagenet").mkdir()
    as_images(tmp_path / "mini-imagenet")
    monkeypatch.setenv("TORCHREPTILE_DATA", str(tmp_path))
    check(load_splits(TaskConfig(dataset="mini-imagenet")).train, "train")


@pytest.mark.parametrize("protocol", [0, 2])
def test_labels_without_names_and_pairs(tmp_path: Path, protocol: int) -> None:
    labels = np.repeat([4, 2, 9], IMAGES)
    content = pickle.dumps((arrays("train"), labels), protocol=protocol)
    (tmp_path / "mini-imagenet-cache-train.pkl").write_bytes(content)
    store = splits(tmp_path).train
    assert store.class_names == ("class002", "class004", "class009")
    assert torch.equal(store.images[:IMAGES], torch.from_numpy(arrays("train")[3:6]).permute(0, 3, 1, 2))


def test_a_split_that_is_absent_is_an_error_only_when_it_is_used(tmp_path: Path) -> None:
    as_images(tmp_path)
    (tmp_path / "test.csv").unlink()
    (tmp_path / "val.csv").unlink()
    found = splits(tmp_path)
    check(found.train, "train")
    assert found.val is None
    for split in ("val", "test"):
        with pytest.raises(DataError, match=rf"has no {split}.csv, which must say what in images/ belongs to {split}"):
            found.get(split)  # type: ignore[arg-type]


def test_pictures_of_other_sizes_are_squashed_whole_and_grey_ones_made_rgb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_images(tmp_path)
    wide, grey = (tmp_path / "images" / name for name in listed("n00000001")[:2])
    large = pixels("n00000001", 2, (2 * SIDE, 4 * SIDE))
    wide.write_bytes(picture(large))
    grey.write_bytes(picture(pixels("n00000001", 10), "L"))
    stores = {resize: splits(tmp_path, resize).train for resize in ("nearest", "bicubic", "lanczos")}
    for resize, store in stores.items():
        filter_ = Image.Resampling[resize.upper()]
        expected = np.asarray(Image.fromarray(large).resize((SIDE, SIDE), filter_)).transpose(2, 0, 1)
        assert np.array_equal(store.images[0].numpy(), expected)
        assert (store.images[1][0] == store.images[1][1]).all()
        check_rest = torch.from_numpy(arrays("train")[2:]).permute(0, 3, 1, 2)
        assert torch.equal(store.images[2:], check_rest)
    assert torch.equal(splits(tmp_path).train.images, stores["nearest"].images)
    assert preparing.prepare(str(tmp_path), "nearest") == 0
    shown = capsys.readouterr().out
    assert "train: 3 classes, 9 pictures" in shown
    assert "1 of mode L made RGB; 1 brought to 8x8 (nearest)" in shown
    assert "already prepared" in shown  # the train split
    assert "0 pairs of identical pictures" in shown


def test_the_cache_is_used_once_made_and_never_for_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        as_images(tmp_path / name)
    changed = tmp_path / "b" / "images" / listed("n00000002")[0]
    changed.write_bytes(picture(255 - pixels("n00000002", 2)))
    assert splits(tmp_path / "a").train.fingerprint != splits(tmp_path / "b").train.fingerprint
    before = splits(tmp_path / "a").train.fingerprint
    changed = tmp_path / "a" / "images" / listed("n00000002")[0]
    content, times = changed.read_bytes(), changed.stat()
    changed.write_bytes(picture(255 - pixels("n00000002", 2)))
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert splits(tmp_path / "a").train.fingerprint == splits(tmp_path / "b").train.fingerprint
    changed.write_bytes(content)
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert splits(tmp_path / "a").train.fingerprint == before
    assert len(list(cache_dir().glob("mini-imagenet-train-*"))) == 2
    monkeypatch.setattr("torchreptile.data.mini_imagenet.sources.decode_all", None)
    assert splits(tmp_path / "a").train.fingerprint == before


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    as_images(tmp_path)
    check(splits(tmp_path).val, "val")  # type: ignore[arg-type]
    (file,) = cache_dir().glob("mini-imagenet-val-*")
    for damage in (file.read_bytes()[:-1], file.read_bytes()[:-1] + b"\x01", b""):
        file.write_bytes(damage)
        check(splits(tmp_path).val, "val")  # type: ignore[arg-type]
    assert [path.name for path in cache_dir().iterdir()] == [file.name]


def test_identical_pictures_across_splits_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_images(tmp_path)
    one, other = (tmp_path / "images" / listed(label)[1] for label in ("n00000002", "n00000003"))
    one.write_bytes(other.read_bytes())
    preparing.prepare(str(tmp_path), "nearest")
    shown = capsys.readouterr().out
    assert "identical pictures: train/n00000002 number 1 and val/n00000003 number 1\n1 pairs" in shown
    assert "1 of them across two splits" in shown


# ---------------------------------------------------------------------------------------------- what is refused


def damaged_images(folder: Path) -> list[str]:
    """Every kind of damage at once, in ``images/`` with lists; what must be said of it."""
    as_images(folder)
    images = folder / "images"
    names = [name for label in CLASSES["train"] for name in listed(label)]
    (images / names[0]).unlink()
    (images / names[1]).write_bytes(b"")
    (images / names[2]).write_bytes((images / names[2]).read_bytes()[:-30])
    (images / names[3]).write_text("<html>404</html>")
    (images / names[4]).unlink()
    os.mkfifo(images / names[4])
    (images / "cat.jpg").write_bytes(b"x")
    return [
        f"{names[0]}: missing",
        f"{names[1]}: the file is empty",
        f"{names[2]}: the file is damaged",
        f"{names[3]}: not a picture",
        f"{names[4]}: not a file",
        "cat.jpg: in none of the lists",
    ]


def link(kind: bytes, name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def damaged_tar(folder: Path) -> list[str]:
    """Every kind of damage at once, in an archive."""
    as_tars(folder)
    contents = files("train")
    names = list(contents)
    contents[names[1]] = b""
    contents[names[2]] = contents[names[2]][:-30]
    contents["../" + names[3]] = contents.pop(names[3])
    contents["/" + names[4]] = contents.pop(names[4])
    contents["cat.jpg"] = b"x"
    contents["again/" + names[5]] = contents[names[5]]
    contents.pop(names[0])
    links = [link(tarfile.SYMTYPE, names[6]), link(tarfile.LNKTYPE, names[7]), link(tarfile.FIFOTYPE, names[8])]
    for name in names[6:9]:
        contents.pop(name)
    write_tar(folder / "images-train.tar.xz", contents, extra=tuple(links))
    return [
        f"{names[0]}: missing",
        f"{names[1]}: the file is empty",
        f"{names[2]}: the file is damaged",
        f"../{names[3]}: its name points outside the archive",
        f"/{names[4]}: its name points outside the archive",
        f"again/{names[5]}: a second picture of that name",
        f"{names[6]}: it is a link, not a file",
        f"{names[7]}: it is a link, not a file",
        f"{names[8]}: it is a device or pipe, not a file",
        "cat.jpg: not in train.csv",
    ]


def damaged_folders(folder: Path) -> list[str]:
    as_folders(folder)
    first = folder / "train" / "n00000001"
    (first / f"{listed('n00000001')[0][:-4]}.JPEG").unlink()
    (first / "notes.txt").write_text("x")
    (folder / "train" / "list.txt").write_text("x")
    (folder / "train" / "n00000009").mkdir()
    return [
        "train: 4 classes, not 3",
        "class n00000001 has 2 pictures, not 3",
        "class n00000009 has 0 pictures, not 3",
        "notes.txt: not a picture",
        "list.txt: not a class folder",
    ]


def damaged_imagenet(folder: Path) -> list[str]:
    as_imagenet(folder)
    for number in (7, 14):
        (folder / "train" / "n00000001" / f"n00000001_{number}.JPEG").unlink()
    (folder / "train" / "n00000002" / "n00000002_70.JPEG").write_bytes(b"")
    return [
        "n00000001: has 10 pictures, but n0000000100000011.jpg is number 11",
        "class n00000001 has 2 pictures, not 3",
        "n00000002_70.JPEG: the file is empty",
    ]


@pytest.mark.parametrize("damage", [damaged_images, damaged_tar, damaged_folders, damaged_imagenet])
def test_everything_that_is_wrong_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], list[str]]
) -> None:
    wanted = damage(tmp_path)
    with pytest.raises(BrokenError) as caught:
        _ = splits(tmp_path).train
    problems = caught.value.problems
    for each in wanted:
        assert sum(each in problem for problem in problems) == 1, (each, problems)
    assert len(problems) == len(wanted)
    message = str(caught.value)
    assert f": {len(wanted)} problems: " in message
    assert "\n" not in message
    check(splits(tmp_path).test, "test")  # the others can be used
    with pytest.raises(DataError, match=rf"{len(wanted)} problems; all are in (.*)mini-imagenet-problems.txt$"):
        preparing.prepare(str(tmp_path), "nearest")
    written = (cache_dir() / "mini-imagenet-problems.txt").read_text().splitlines()
    assert written == problems
    shown = capsys.readouterr().err.splitlines()
    assert [line for line in shown if line in problems] == problems
    assert not list(cache_dir().glob("mini-imagenet-train-*"))
    assert not list(cache_dir().glob(".*"))


def test_of_many_problems_the_first_are_shown_and_all_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "SHOWN", 2)
    as_images(tmp_path)
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="21 problems; the first 2 are above, all are in "):
        preparing.prepare(str(tmp_path), "nearest")
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert len((cache_dir() / "mini-imagenet-problems.txt").read_text().splitlines()) == 21


@pytest.mark.parametrize("cut", [0, 10, 100, 1000])
@pytest.mark.parametrize("kind", ["xz", "gz", ""])
def test_a_broken_archive_is_refused_by_name(tmp_path: Path, cut: int, kind: str) -> None:
    write_list(tmp_path, "train")
    path = tmp_path / f"images-train.tar{'.' * bool(kind)}{kind}"
    write_tar(path, files("train"), f"w:{kind}")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=rf"{path.name}.*(not a complete tar archive|missing)") as caught:
        _ = splits(tmp_path).train
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_something_else(tmp_path: Path) -> None:
    write_list(tmp_path, "train")
    (tmp_path / "images-train.tar.xz").write_bytes(b"PK\x03\x04" + b"no tar" * 1000)
    with pytest.raises(DataError, match=r"images-train.tar.xz: not a complete tar archive"):
        _ = splits(tmp_path).train


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line must name the columns filename and label"),
        ("file,class\na.jpg,n1\n", "its first line must name the columns filename and label"),
        ("filename,label\n", "empty"),
        ("filename,label\na.jpg,n1\na.jpg,n1\n", "1 line is wrong (line 3 lists a.jpg again)"),
        ("filename,label\n../a.jpg,n1\n", "line 2 has file name '../a.jpg' and label 'n1'"),
        ("filename,label\n/etc/passwd,n1\n", "line 2 has file name '/etc/passwd' and label 'n1'"),
        ("filename,label\na.jpg\n", "line 2 has file name 'a.jpg' and label ''"),
        ("filename,label\n,n1\n..,n1\n", "2 lines are wrong"),
        (b"filename,label\n\xff\xfe,n1\n", "cannot be read as a csv list"),
        ("filename,label\n" + "a" * 200_000 + ",n1\n", "cannot be read as a csv list"),
    ],
)
def test_lists_that_are_none(tmp_path: Path, text: str | bytes, message: str) -> None:
    as_images(tmp_path)
    (tmp_path / "train.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=re.escape("train.csv: ") + ".*" + re.escape(message)):
        splits(tmp_path)


def test_a_list_with_too_few_or_another_class(tmp_path: Path) -> None:
    as_images(tmp_path)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(
        BrokenError, match=r"class n00000005 has 2 pictures, not 3; .*n0000000500000011.jpg: in none of the lists"
    ):
        _ = splits(tmp_path).train
    (tmp_path / "train.csv").write_text("\n".join(lines[:-3]))
    with pytest.raises(BrokenError, match="2 classes, not 3"):
        _ = splits(tmp_path).train


def test_a_class_in_two_splits_is_refused(tmp_path: Path) -> None:
    as_images(tmp_path)
    (tmp_path / "val.csv").write_text((tmp_path / "train.csv").read_text())
    with pytest.raises(DataError, match="class n00000001 is in train and in val; it must be in one only"):
        splits(tmp_path)


GOOD = {"image_data": np.zeros((6, SIDE, SIDE, 3), np.uint8), "class_dict": {"a": [0, 1, 2], "b": [3, 4, 5]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": 1, "y": 2}, "holds a dict of x, y; it must hold image_data and class_dict, or data and labels"),
        ([1, 2, 3], "holds list; it must hold"),
        (GOOD | {"image_data": [1, 2]}, "its images are a list; they must be an array, (N, 8, 8, 3) uint8"),
        (GOOD | {"image_data": np.zeros((6, 9, 8, 3), np.uint8)}, "are (6, 9, 8, 3) uint8; they must be (N, 8, 8, 3)"),
        (GOOD | {"image_data": np.zeros((6, SIDE, SIDE, 3))}, "are (6, 8, 8, 3) float64; they must be"),
        (GOOD | {"class_dict": [0, 1]}, "its class_dict is a list; it must be a dict"),
        (GOOD | {"class_dict": {"a": [0, 1, 2], "b": [3, 4, 6]}}, "class b must be a list of indices from 0 to 5"),
        (GOOD | {"class_dict": {"a": [0, 1, 2], "b": "345"}}, "class b must be a list of indices"),
        (GOOD | {"class_dict": {"a": [0, 1, 2], "b": [0, 1, 2]}}, "6 images, but its classes name 3 of them, 6 times"),
        (GOOD | {"class_dict": {"a": [0, 1, 2, 3], "b": [4, 5]}}, "class a has 4 pictures, not 3"),
        ({"data": GOOD["image_data"], "labels": 3}, "its labels are a int; they must be a list of numbers or names"),
        ({"data": GOOD["image_data"], "labels": [0, 0, 0, 1, 1]}, "6 images, but its classes name 5 of them"),
        ({"data": GOOD["image_data"], "labels": [0, 0, 0, 1, 1, 2]}, "3 classes, not 2"),
        (Path("x"), "the pickle names pathlib"),
    ],
)
def test_pickles_that_hold_something_else(tmp_path: Path, content: object, message: str) -> None:
    (tmp_path / "mini-imagenet-cache-val.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="mini-imagenet-cache-val.pkl: .*" + re.escape(message)):
        splits(tmp_path).get("val")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda folder: None,
            "has no train pictures; .* has no val pictures; .* has no test pictures. reptile data prep",
        ),
        (
            lambda folder: write_list(folder, "train"),
            "train.csv is there, but neither images-train.tar.xz .* nor images/",
        ),
        (
            lambda folder: (folder / "images").mkdir(),
            "has no train.csv, which must say what in images/ belongs to train",
        ),
        (
            lambda folder: write_tar(folder / "images-train.tar.xz", files("train")),
            "has no train.csv, which must say what in images-train.tar.xz belongs to train",
        ),
    ],
)
def test_folders_that_hold_no_split(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        splits(tmp_path)


def test_no_data_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError, match=r"cannot be downloaded: its pictures are ImageNet's. Give --data-root FOLDER, or"
    ):
        load_splits(TaskConfig(dataset="mini-imagenet"))
    with pytest.raises(DataError, match=r"none does not exist; --data-root must point to a folder with the data set"):
        splits(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file is not a folder; --data-root must"):
        splits(tmp_path / "file")
    monkeypatch.setenv("TORCHREPTILE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"mini-imagenet does not exist; TORCHREPTILE_DATA must point to a folder"):
        load_splits(TaskConfig(dataset="mini-imagenet"))


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_images(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot write .*; set TORCHREPTILE_CACHE to a writable folder"):
        _ = splits(tmp_path).train
