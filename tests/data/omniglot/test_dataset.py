"""Omniglot: tiny fake zips hold every refusal against its message; the real data, where there, hold the counts."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from PIL import Image

from torchreptile.core.errors import DataError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.leakage import find_duplicates
from torchreptile.data.omniglot import dataset as omniglot
from torchreptile.data.omniglot.dataset import Archive, Expected

Members = dict[str, bytes]

REPOSITORY = Path(__file__).resolve().parents[3]
REAL = Path(os.environ.get("TORCHREPTILE_DATA") or REPOSITORY.parent / "shared" / "data").resolve()
needs_real_data = pytest.mark.skipif(
    not all((REAL / "omniglot" / f"{name}.zip").is_file() for name in omniglot.MD5),
    reason=f"no Omniglot zips in {REAL / 'omniglot'}; set TORCHREPTILE_DATA",
)

BACKGROUND = Archive("images_background", {"Zeta": (1, 2)})
EVALUATION = Archive("images_evaluation", {"Alpha_(old)": (3, 1)})
FIRST = "images_background/Zeta/character01/0001_01.png"
CLASSES = ["Alpha_(old)/character01", "Zeta/character01", "Zeta/character02"]


# ---------------------------------------------------------------------------------------------- tiny fake data


def png(pixels: np.ndarray, mode: str = "1") -> bytes:
    """(H, W) bool, True = paper, as the bytes of a PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8) * 255).convert(mode).save(stream, "PNG")
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"")
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (head, body, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def write_zip(path: Path, members: Members) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


class Tiny:
    """Three characters in two zips of the official layout, and the store they must become."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "omniglot"
        generator = np.random.default_rng(0)
        self.pixels = {name: generator.random((20, 105, 105)) < 0.8 for name in CLASSES}
        self.members: dict[str, Members] = {
            archive.folder: {
                member: png(drawing)
                for name, members in archive.members().items()
                for member, drawing in zip(members, self.pixels[name], strict=True)
            }
            for archive in (BACKGROUND, EVALUATION)
        }
        # Nearest neighbour by its definition: the pixel under the centre of each of the 28 cells.
        near = ((np.arange(28) + 0.5) * 105 / 28).astype(int)
        images = np.concatenate([self.pixels[name] for name in CLASSES])[:, near][:, :, near]
        self.store = ImageStore(
            images=torch.from_numpy(images.astype(np.uint8) * 255).unsqueeze(1),
            class_sizes=torch.full((3,), 20),
            class_names=tuple(CLASSES),
            name="omniglot",
        )
        self.expected = Expected((BACKGROUND, EVALUATION), self.store.fingerprint)

    def path(self, archive: str) -> Path:
        return self.folder / f"{archive}.zip"

    def write(self) -> None:
        for archive, members in self.members.items():
            write_zip(self.path(archive), members)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tiny:
    data = Tiny(tmp_path / "data")
    monkeypatch.setenv("TORCHREPTILE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(omniglot, "official", lambda: data.expected)
    return data


def same(a: ImageStore, b: ImageStore) -> bool:
    return a.fingerprint == b.fingerprint and a.name == b.name


# ------------------------------------------------------------------------------------------- preparing, caching


def test_prepared_store_is_the_nearest_pixel_of_every_drawing_in_sorted_order(tiny: Tiny) -> None:
    tiny.write()
    store = omniglot.load()
    assert store.class_names == tuple(CLASSES)
    assert store.images.shape == (60, 1, 28, 28)
    assert torch.equal(store.images, tiny.store.images)
    assert same(store, tiny.store)
    members = [name for archive in tiny.members.values() for name in archive if name.endswith(".png")]
    for index, name in enumerate(store.image_names):
        of_class = [member for member in members if store.class_names[index // 20] in member]
        assert of_class[index % 20].endswith(f"/{name}")
        assert name.endswith(f"_{index % 20 + 1:02d}.png")  # the person who drew it


def test_directory_entries_and_the_order_of_members_do_not_matter(tiny: Tiny) -> None:
    members = tiny.members["images_background"]
    tiny.members["images_background"] = {"images_background/": b""} | dict(reversed(members.items()))
    tiny.write()
    assert same(omniglot.load(), tiny.store)


def test_the_cached_store_needs_no_zips(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.write()
    omniglot.load()
    monkeypatch.delenv("TORCHREPTILE_DATA")
    assert same(omniglot.load(), tiny.store)


def test_a_cache_with_a_changed_pixel_is_made_again(tiny: Tiny, tmp_path: Path) -> None:
    tiny.write()
    omniglot.load()
    path = tmp_path / "cache" / omniglot.CACHE_FILE
    content = bytearray(path.read_bytes())
    content[-100] ^= 0xFF
    path.write_bytes(content)
    assert same(omniglot.load(), tiny.store)


# -------------------------------------------------------------------------------------------------- refusals


def drop(*names: str) -> Callable[[Members], None]:
    def change(members: Members) -> None:
        for name in names:
            del members[name]

    return change


def put(name: str, content: bytes) -> Callable[[Members], None]:
    return lambda members: members.update({name: content})


PAPER = np.ones((105, 105), bool)
FOUR = [f"images_background/Zeta/character02/0002_{d:02d}.png" for d in (3, 4, 5, 6)]
REFUSALS: dict[str, tuple[Callable[[Members], None], str]] = {
    "one missing": (drop(FIRST), f"1 missing: '{FIRST}'"),
    "four missing": (drop(*FOUR), f"4 missing: '{FOUR[0]}', '{FOUR[1]}', '{FOUR[2]}', ..."),
    "foreign": (put("images_background/Zeta/.DS_Store", b""), "1 not part of Omniglot: 'images_background/Zeta/.DS_St"),
    "resource fork": (put("__MACOSX/x.png", b""), "1 not part of Omniglot: '__MACOSX/x.png'"),
    "escaping": (put("../evil.png", b""), "1 not part of Omniglot: '../evil.png'"),
    "escaping inside": (put("images_background/../../evil", b""), "'images_background/../../evil'"),
    "absolute": (put("/etc/evil", b""), "1 not part of Omniglot: '/etc/evil'"),
    "oversized": (put(FIRST, bytes(10_000_000)), f"1 above 65536 bytes: '{FIRST}'"),
    "truncated": (put(FIRST, png(PAPER)[:60]), f"{FIRST} is damaged or not a PNG"),
    "empty": (put(FIRST, b""), f"{FIRST} is damaged or not a PNG"),
    "no image": (put(FIRST, b"hello"), f"{FIRST} is damaged or not a PNG"),
    "pixel bomb": (put(FIRST, png_header(20_000, 20_000)), f"{FIRST} is damaged or not a PNG"),
    "smaller pixel bomb": (put(FIRST, png_header(10_000, 10_000)), f"{FIRST} is "),  # a warning at first, then refused
    "wrong size": (put(FIRST, png(PAPER[:104])), f"{FIRST} is 105x104 with mode 1, not a 1-bit 105x105 PNG"),
    "grey": (put(FIRST, png(PAPER, "L")), f"{FIRST} is 105x105 with mode L, not a 1-bit 105x105 PNG"),
    "other picture": (put(FIRST, png(PAPER)), "is not the published one (fingerprint "),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_wrong_member_is_refused_by_name(case: str, tiny: Tiny, tmp_path: Path) -> None:
    change, message = REFUSALS[case]
    change(tiny.members["images_background"])
    tiny.write()
    with pytest.raises(DataError) as caught:
        omniglot.load()
    assert message in str(caught.value)
    assert str(tiny.path("images_background")) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "BytesIO" not in str(caught.value)  # Pillow's words, with an address in memory
    assert not list(tmp_path.rglob("evil*"))
    assert not list(tmp_path.glob("cache/*"))


def test_missing_and_foreign_members_are_named_together(tiny: Tiny) -> None:
    members = tiny.members["images_background"]
    members["images_background/Zeta/character01/renamed.png"] = members.pop(FIRST)
    tiny.write()
    with pytest.raises(DataError, match=r"1 missing: .*0001_01\.png.*; 1 not part of Omniglot: .*renamed\.png"):
        omniglot.load()


def test_a_member_that_is_there_twice_is_refused(tiny: Tiny) -> None:
    tiny.write()
    with zipfile.ZipFile(tiny.path("images_background"), "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr(FIRST, png(PAPER))
    with pytest.raises(DataError, match=f"1 there more than once: '{FIRST}'"):
        omniglot.load()


def test_a_member_larger_than_the_directory_says_is_not_unpacked(tiny: Tiny) -> None:
    tiny.members["images_background"][FIRST] = bytes(10_000_000)
    tiny.write()
    path = tiny.path("images_background")
    path.write_bytes(path.read_bytes().replace(struct.pack("<L", 10_000_000), struct.pack("<L", 300)))
    with pytest.raises(DataError, match=f"{FIRST} is damaged or not a PNG"):
        omniglot.load()


def test_a_member_with_a_changed_byte_is_refused(tiny: Tiny) -> None:
    tiny.write()
    path = tiny.path("images_background")
    content = bytearray(path.read_bytes())
    content[content.index(FIRST.encode()) + len(FIRST) + 100] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{FIRST} is damaged or not a PNG"):
        omniglot.load()


@pytest.mark.parametrize("keep", [0, 5_000], ids=["empty", "cut off"])
def test_a_damaged_zip_is_refused(keep: int, tiny: Tiny) -> None:
    tiny.write()
    path = tiny.path("images_evaluation")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"images_evaluation\.zip: not a readable zip"):
        omniglot.load()


def test_another_fingerprint_is_named(tiny: Tiny) -> None:
    tiny.write()
    with pytest.raises(DataError, match=f"fingerprint {tiny.store.fingerprint}, expected 123"):
        omniglot.prepare(replace(tiny.expected, fingerprint="123"))


# -------------------------------------------------------------------------------------------------- download


def test_without_data_the_error_says_what_to_fetch_and_where_to_put_it() -> None:
    with pytest.raises(DataError) as caught:
        omniglot.load()
    message = str(caught.value)
    assert "\n" not in message
    for name, md5 in omniglot.MD5.items():
        assert f"https://github.com/brendenlake/omniglot/raw/master/python/{name}.zip (MD5 {md5})" in message
        assert f"DIR/omniglot/{name}.zip" in message
    assert "TORCHREPTILE_DATA=DIR" in message
    assert "is set, but" not in message


def test_a_zip_absent_from_the_users_folder_is_downloaded_and_said_to_be_absent(tiny: Tiny) -> None:
    tiny.write()
    tiny.path("images_evaluation").unlink()
    with pytest.raises(DataError) as caught:
        omniglot.load()
    assert "cannot download images_evaluation.zip" in str(caught.value)
    assert f"TORCHREPTILE_DATA is set, but {tiny.path('images_evaluation')} does not exist" in str(caught.value)


def test_downloads_go_to_the_cache_with_the_published_checksums(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny.write()
    monkeypatch.delenv("TORCHREPTILE_DATA")
    asked = []

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        asked.append((url, known_hash, path))
        return str(tiny.folder / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert same(omniglot.load(), tiny.store)
    base = "https://github.com/brendenlake/omniglot/raw/master/python/"
    folder = tmp_path / "cache" / "omniglot"
    assert asked == [
        (f"{base}images_background.zip", "md5:68d2efa1b9178cc56df9314c21c6e718", folder),
        (f"{base}images_evaluation.zip", "md5:6b91aef0f799c5bb55b94e3f2daec811", folder),
    ]


# --------------------------------------------------------------------------------------------------- real data


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageStore]:
    """Omniglot prepared from the real zips, once for this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHREPTILE_DATA", str(REAL))
        patch.setenv("TORCHREPTILE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield omniglot.load()


def real_drawing(class_name: str, drawing: int) -> Image.Image:
    for archive in omniglot.official().archives:
        members = archive.members()
        if class_name in members:
            with zipfile.ZipFile(REAL / "omniglot" / f"{archive.folder}.zip") as file:
                return Image.open(io.BytesIO(file.read(members[class_name][drawing])))
    raise AssertionError(class_name)


@needs_real_data
def test_real_store_is_complete_and_black_on_white(real: ImageStore) -> None:
    assert real.name == "omniglot"
    assert real.images.shape == (32460, 1, 28, 28)
    assert ((real.images == 0) | (real.images == 255)).all()
    assert (real.images == 255).float().mean() > 0.8  # paper is white
    assert len(real) == 1623
    assert real.class_sizes.tolist() == [20] * 1623
    assert list(real.class_names) == sorted(real.class_names, key=lambda name: name.split("/"))
    assert real.fingerprint == omniglot.FINGERPRINT


@needs_real_data
@pytest.mark.parametrize(
    ("class_name", "drawing"), [("Greek/character03", 0), ("ULOG/character26", 19), ("Syriac_(Serto)/character10", 7)]
)
def test_real_drawings_are_pillows_nearest_resize(real: ImageStore, class_name: str, drawing: int) -> None:
    small = real_drawing(class_name, drawing).convert("L").resize((28, 28), Image.Resampling.NEAREST)
    index = 20 * real.class_names.index(class_name) + drawing
    assert np.array_equal(real.images[index, 0].numpy(), np.asarray(small))


@needs_real_data
def test_real_duplicates_lie_within_one_character(real: ImageStore) -> None:
    braille = 20 * real.class_names.index("Braille/character01")
    pairs = find_duplicates(real)
    assert (braille + 2, braille + 18) in pairs  # the same picture at 105x105 too
    assert len(pairs) == 6  # the other five only became the same at 28x28
    assert all(i // 20 == j // 20 for i, j in pairs)
    assert np.array_equal(
        np.asarray(real_drawing("Braille/character01", 2)), np.asarray(real_drawing("Braille/character01", 18))
    )


@needs_real_data
def test_real_splits_rotate_the_training_classes_alone(real: ImageStore) -> None:
    splits = omniglot.split(real, "reptile", seed=0)
    assert (len(splits.train), len(splits.test)) == (4800, 423)
    turned = splits.train.class_names.index(splits.train.class_names[0].replace("/rot000", "/rot090"))
    upright, quarter = (splits.train.images[20 * i : 20 * i + 20] for i in (0, turned))
    assert torch.equal(quarter, torch.rot90(upright, 1, (2, 3)))
    for name in splits.test.class_names[:5]:
        i, j = splits.test.class_names.index(name), real.class_names.index(name)
        assert torch.equal(splits.test.images[20 * i : 20 * i + 20], real.images[20 * j : 20 * j + 20])
