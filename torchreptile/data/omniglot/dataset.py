"""Omniglot (Lake, Salakhutdinov, Tenenbaum 2015): 1,623 handwritten characters, 20 drawings each.

The official zips are read in memory, never extracted. Only their contents matter: a re-zipped copy is as good as the
original, and anything missing, added or changed is refused by name.
"""

from __future__ import annotations

import io
import json
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from torchreptile.core.errors import DataError
from torchreptile.core.files import open_regular
from torchreptile.data.cache import prepared
from torchreptile.data.image_store import ImageStore
from torchreptile.data.omniglot.download import RemoteFile, fetch
from torchreptile.data.own_images.line_drawings import FIELD
from torchreptile.data.splits import MissingSplit, Splits, resolve_scheme, shuffled_classes

URL = "https://github.com/brendenlake/omniglot/raw/master/python/"
MD5 = {
    "images_background": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation": "6b91aef0f799c5bb55b94e3f2daec811",
}
FINGERPRINT = "07e7966528182ad2861098f133f1f6f8d0788603960193c065e2b8015cdfa2fc"
CACHE_FILE = "omniglot-28-v1.safetensors"

DRAWINGS = 20  # per character
PUBLISHED_SIDE, SIDE = FIELD, 28  # pixels; 28 is the size in every published result
MAX_ZIP_BYTES = 2**30  # the official zips have 9 MB and 6 MB
MAX_MEMBER_BYTES = 64 * 1024  # the largest member of the official zips has 522

CHARACTERS, REPTILE_TRAIN, MAML_TRAIN = 1623, 1200, 1100

# Exceptions that zipfile, the decompressors and Pillow raise for damaged files.
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    RuntimeError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True)
class Archive:
    """The expected content of one zip.

    Attributes:
        folder: the folder at its root, and the stem of its file name.
        alphabets: name -> (number of its first character, number of characters); Omniglot numbers its characters
            consecutively across both archives, and file names contain these numbers.
    """

    folder: str
    alphabets: dict[str, tuple[int, int]]

    def members(self) -> dict[str, list[str]]:
        """Map each class name to the members with its drawings, in the order of the drawings."""
        return {
            f"{alphabet}/character{1 + i:02d}": [
                f"{self.folder}/{alphabet}/character{1 + i:02d}/{first + i:04d}_{1 + d:02d}.png"
                for d in range(DRAWINGS)
            ]
            for alphabet, (first, characters) in self.alphabets.items()
            for i in range(characters)
        }


@dataclass(frozen=True)
class Expected:
    """The expected data set.

    Attributes:
        archives: the contents of the zips.
        fingerprint: the fingerprint of the prepared store.
    """

    archives: tuple[Archive, ...]
    fingerprint: str


def official() -> Expected:
    """Return Omniglot as published: 30 background alphabets of 964 characters, 20 evaluation alphabets of 659."""
    layout = json.loads(_resource("omniglot.json"))
    archives = [
        Archive(folder, {name: (first, characters) for name, (first, characters) in alphabets.items()})
        for folder, alphabets in layout.items()
    ]
    return Expected(tuple(archives), FINGERPRINT)


def load() -> ImageStore:
    """Load Omniglot: 1,623 classes of 20 drawings, classes in the order of (alphabet, character).

    It is prepared once from the zips, then cached.

    Returns:
        A store with images (32460, 1, 28, 28) uint8, ink 0 and paper 255; their names, such as 0394_05.png, end in the
        number of the person who drew them, the same in every character.

    Raises:
        DataError: the data cannot be found, downloaded or prepared, or are not Omniglot.
    """
    expected = official()
    store = prepared(CACHE_FILE, lambda: prepare(expected), expected.fingerprint)
    drawings = {name: paths for archive in expected.archives for name, paths in archive.members().items()}
    paths = (path for name in store.class_names for path in drawings[name])
    return replace(store, image_names=tuple(path.rpartition("/")[2] for path in paths))


def prepare(expected: Expected) -> ImageStore:
    """Find or download the zips, decode every drawing and check the result against ``expected``.

    Raises:
        DataError: a member of a zip is missing, unknown or damaged; the message names both.
    """
    names = [archive.folder for archive in expected.archives]
    paths = fetch("omniglot", [RemoteFile(f"{name}.zip", f"{URL}{name}.zip", MD5[name]) for name in names])
    drawings: dict[str, NDArray[np.uint8]] = {}
    for path, archive in zip(paths, expected.archives, strict=True):
        drawings.update(read_archive(path, archive))
    classes = sorted(drawings, key=lambda name: name.split("/"))
    store = ImageStore(
        images=torch.from_numpy(np.concatenate([drawings[name] for name in classes])).unsqueeze(1),
        class_sizes=torch.full((len(classes),), DRAWINGS),
        class_names=tuple(classes),
        name="omniglot",
    )
    if store.fingerprint != expected.fingerprint:
        raise DataError(
            f"omniglot: every drawing is there, but a picture in {' or '.join(map(str, paths))} "
            f"is not the published one (fingerprint {store.fingerprint}, expected {expected.fingerprint}); "
            "use the official zips"
        )
    return store


def read_archive(path: Path, archive: Archive, side: int = SIDE) -> dict[str, NDArray[np.uint8]]:
    """Decode every drawing of one zip.

    Args:
        path: the zip.
        archive: its expected content.
        side: height and width of the result, pixels.

    Returns:
        Class name -> (20, side, side) uint8, ink 0 and paper 255.

    Raises:
        DataError: the zip or one of its members differs from ``archive``.
    """
    try:
        opened = open_regular(path, MAX_ZIP_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); replace it with the official zip") from error
    with opened:
        try:
            file = zipfile.ZipFile(opened)
        except _DAMAGE as error:
            raise DataError(f"{path}: not a readable zip ({error}); replace it with the official one") from error
        classes = archive.members()
        _check_members(path, file.infolist(), [member for members in classes.values() for member in members])
        return {
            name: np.stack([_read_drawing(path, file, member, side) for member in members])
            for name, members in classes.items()
        }


def _check_members(path: Path, found: Sequence[zipfile.ZipInfo], wanted: Sequence[str]) -> None:
    """Refuse a zip with members missing, repeated, unknown (as is any path that would escape) or far too large."""
    files = [info for info in found if not info.is_dir()]
    counts = Counter(info.filename for info in files)
    expected = set(wanted)
    problems = {
        "missing": [name for name in wanted if name not in counts],
        "not part of Omniglot": [name for name in counts if name not in expected],
        "there more than once": [name for name, count in counts.items() if count > 1],
        f"above {MAX_MEMBER_BYTES} bytes": [info.filename for info in files if info.file_size > MAX_MEMBER_BYTES],
    }
    reported = [
        f"{len(names)} {problem}: {', '.join(repr(n[:100]) for n in names[:3])}{', ...' if len(names) > 3 else ''}"
        for problem, names in problems.items()
        if names
    ]
    if reported:
        raise DataError(f"{path}: members are wrong ({'; '.join(reported)}); replace it with the official zip")


def _read_drawing(path: Path, file: zipfile.ZipFile, member: str, side: int) -> NDArray[np.uint8]:
    """Decode one drawing to (side, side) uint8, ink 0 and paper 255."""
    try:
        with file.open(member) as stream:
            # The size in the zip's directory may be false: never unpack more than a drawing can have.
            content = stream.read(MAX_MEMBER_BYTES)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.mode != "1" or image.size != (PUBLISHED_SIDE, PUBLISHED_SIDE):
                raise DataError(
                    f"{path}: {member} is {image.width}x{image.height} with mode {image.mode}, "
                    f"not a 1-bit {PUBLISHED_SIDE}x{PUBLISHED_SIDE} PNG"
                )
            # The filter is explicit because Pillow's default has changed; published results used nearest.
            resized = image.resize((side, side), Image.Resampling.NEAREST)
            return np.asarray(resized.convert("L"))
    except UnidentifiedImageError as error:  # Pillow's message contains a memory address
        raise DataError(f"{path}: {member} is damaged or not a PNG") from error
    except _DAMAGE as error:
        raise DataError(f"{path}: {member} is damaged or not a PNG ({error})") from error


def split(store: ImageStore, scheme: str, seed: int) -> Splits:
    """Divide Omniglot into splits; training classes get their four rotations.

    The other classes stay as drawn, unless the scheme says otherwise.

    - ``reptile``: shuffled by ``seed``, 1,200 characters to train and 423 to test (as in the original code).
    - ``vinyals``: the lists of Vinyals et al. 2016: 1,028 train, 172 val, 423 test; ``seed`` is not used.
    - ``vinyals-rotated``: the same lists, val and test rotated as well (as in the code of Snell et al. 2017).
    - ``maml``: shuffled by ``seed``, 1,100 characters to train, 100 to validate and 423 to test, all rotated (as in the
      code of Finn et al. 2017).
    - ``background-evaluation``: Lake's 964 train and 659 test, with no alphabet in both; ``seed`` is not used.

    Args:
        store: all 1,623 classes.
        scheme: name of the scheme, or ``default``.
        seed: seed of the shuffle.

    Raises:
        ConfigError: the scheme is unknown.
        DataError: the store is not the complete Omniglot.
    """
    scheme = resolve_scheme("omniglot", scheme)
    no_val = MissingSplit(f"omniglot divided by {scheme} has no val classes; take train or test")
    if len(store) != CHARACTERS:
        raise DataError(f"{store.name}: {len(store)} classes, but an Omniglot split needs all {CHARACTERS}")
    if scheme == "reptile":
        order = shuffled_classes(store, seed)
        train, test = order[:REPTILE_TRAIN], order[REPTILE_TRAIN:]
        return Splits(store.select(train).with_rotations(), no_val, store.select(test))
    if scheme == "maml":
        order = shuffled_classes(store, seed)
        bounds = (order[:MAML_TRAIN], order[MAML_TRAIN:REPTILE_TRAIN], order[REPTILE_TRAIN:])
        return Splits(*(store.select(classes).with_rotations() for classes in bounds))
    held_out = {"test": _evaluation_classes()} if scheme == "background-evaluation" else _vinyals()
    parts = {part: [i for i, name in enumerate(store.class_names) if name in names] for part, names in held_out.items()}
    held_out_classes = {i for classes in parts.values() for i in classes}
    rest = [i for i in range(len(store)) if i not in held_out_classes]
    stores = {"train": store.select(rest).with_rotations()}
    for part, classes in parts.items():
        as_drawn = store.select(classes)
        stores[part] = as_drawn.with_rotations() if scheme == "vinyals-rotated" else as_drawn
    return Splits(stores["train"], stores.get("val", no_val), stores["test"])


def _vinyals() -> dict[str, set[str]]:
    """Return the class names of ``"val"`` and ``"test"`` in Vinyals' lists, without rotations; the rest is train."""
    lists = json.loads(_resource("vinyals.json"))
    return {
        part: {f"{alphabet}/character{number:02d}" for alphabet, numbers in alphabets.items() for number in numbers}
        for part, alphabets in lists.items()
    }


def _evaluation_classes() -> set[str]:
    """Return the class names of Lake's evaluation alphabets."""
    _, evaluation = official().archives
    return set(evaluation.members())


def _resource(name: str) -> str:
    """Read a text file of this package."""
    return resources.files("torchreptile.data.omniglot").joinpath(name).read_text(encoding="utf-8")
