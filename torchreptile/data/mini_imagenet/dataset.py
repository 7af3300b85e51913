"""mini-ImageNet (Vinyals et al. 2016) with the split of Ravi & Larochelle 2017: 64/16/20 classes, 600 pictures each.

It cannot be downloaded, as the pictures are ImageNet's, and it circulates in many layouts. In the folder given by
``--data-root``, or ``$TORCHREPTILE_DATA/mini-imagenet``, each split is searched for in these layouts, in this order:

1. ``images-train.tar`` (or ``.tar.xz``, ``.tar.gz``) with the list ``train.csv``
2. ``images/`` with ``train.csv``
3. ``train/CLASS/*.jpg``
4. ``mini-imagenet-cache-train.pkl`` or ``miniImageNet_category_split_train_phase_train.pickle``
5. the training folder of ILSVRC-2012, ``train/n01532829/n01532829_123.JPEG``, with ``train.csv``

The csv lists have the columns filename and label. Their file names are not those of ILSVRC: the last eight digits of
``n0153282900000005.jpg`` are the position, from 1, among the files of class n01532829 ordered by the number after the
underscore (ordering by name gives other pictures). This is how the published generators build the set
(https://github.com/yaoyao-liu/mini-imagenet-tools); it needs the complete classes of ILSVRC.

Pictures are squashed to 84 x 84, not cropped, and converted to RGB; pictures of that size are left as they are.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from torchreptile.core.config import Resize
from torchreptile.core.errors import DataError
from torchreptile.core.files import remove_abandoned
from torchreptile.core.paths import cache_dir, data_dir, expanded
from torchreptile.data.image_store import ImageStore
from torchreptile.data.image_store_writer import Plan, building
from torchreptile.data.mini_imagenet.layouts import find
from torchreptile.data.mini_imagenet.sources import Decoding, Progress, Source
from torchreptile.data.splits import SPLITS, MissingSplit, Split, Splits

VERSION = 1  # of the conversion of pictures to pixels; a new version invalidates every cached store


@dataclass(frozen=True)
class Expected:
    """The expected size of mini-ImageNet; tests use a smaller one.

    Attributes:
        classes: number of classes in every split.
        images: number of images in every class.
        side: height and width, pixels.
    """

    classes: dict[Split, int] = field(default_factory=lambda: {"train": 64, "val": 16, "test": 20})
    images: int = 600
    side: int = 84


class BrokenError(DataError):
    """Pictures that are missing, damaged or do not belong to the data set.

    Attributes:
        problems: all problems, one line each.
    """

    def __init__(self, where: str, problems: list[str]) -> None:
        self.problems = problems
        shown = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
        super().__init__(
            f"{where}: {len(problems):,} {'problem' if len(problems) == 1 else 'problems'}: {shown}"
            " (reptile data prepare mini-imagenet names all)"
        )


def official() -> Expected:
    """Return the size of mini-ImageNet as published."""
    return Expected()


def root(data_root: str) -> Path:
    """Return the folder of the data set: ``data_root``, or by default ``$TORCHREPTILE_DATA/mini-imagenet``.

    Raises:
        DataError: neither is given, or the folder does not exist.
    """
    own = data_dir()
    if not data_root and own is None:
        raise DataError(
            "mini-imagenet cannot be downloaded: its pictures are ImageNet's. Give --data-root FOLDER, or set "
            "TORCHREPTILE_DATA=DIR with DIR/mini-imagenet; reptile data prepare --help says what may be in it"
        )
    folder = expanded(data_root, "data_root") if data_root or own is None else own / "mini-imagenet"
    if not folder.is_dir():
        setting = "--data-root" if data_root else "TORCHREPTILE_DATA"
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"mini-imagenet: {folder} {what}; {setting} must point to a folder with the data set")
    return folder


def sources(folder: Path) -> dict[Split, Source | MissingSplit]:
    """Find every split of the data set in ``folder``, or the reason why it is missing; no picture is read.

    Raises:
        DataError: there is no split, a list cannot be read, or a class is in two splits.
    """
    expected = official()
    found = {split: find(folder, split, expected.images, expected.side) for split in SPLITS}
    present = {split: source for split, source in found.items() if not isinstance(source, MissingSplit)}
    if not present:
        reasons = "; ".join(source.reason for source in found.values() if isinstance(source, MissingSplit))
        raise DataError(f"{reasons}. reptile data prepare --help says what may be in {folder}")
    owners: dict[str, Split] = {}
    for split, source in present.items():
        for name in source.named:
            if name in owners:
                raise DataError(f"{folder}: class {name} is in {owners[name]} and in {split}; it must be in one only")
            owners[name] = split
    return found


def split(data_root: str, resize: Resize) -> Splits:
    """Return the three splits; each is decoded when it is first used, and cached.

    Raises:
        DataError: as in :func:`sources`; a problem within a split is reported when that split is used.
    """
    folder = root(data_root)
    found = sources(folder)

    def member(name: Split) -> MissingSplit | Loader:
        source = found[name]
        return source if isinstance(source, MissingSplit) else Loader(folder, name, source, resize)

    return Splits(*(member(name) for name in SPLITS))


@dataclass(frozen=True)
class Loader:
    """A loader of one split, which decodes it or takes it from the cache.

    Attributes:
        folder: folder of the data set.
        split: name of the split.
        source: its pictures.
        resize: filter for pictures of another size.
    """

    folder: Path
    split: Split
    source: Source
    resize: Resize

    def __call__(self, on_progress: Progress = lambda done, total: None) -> ImageStore:
        """Load the split as a store with images (N, 3, 84, 84) uint8, memory-mapped.

        Args:
            on_progress: called with the number of pictures done and their total.

        Raises:
            BrokenError: pictures are missing, damaged or do not belong to the split; all are named.
            DataError: an archive, list or pickle cannot be read, or the cache cannot be written.
        """
        made_of = self._made_of()
        remove_abandoned(self.file.parent)
        if self.file.is_file():
            with suppress(DataError):
                return self._named(ImageStore.load(self.file, made_of))
        self._make(made_of, on_progress)
        return self._named(ImageStore.load(self.file, made_of))

    def _named(self, store: ImageStore) -> ImageStore:
        """The store with the names of the picture files."""
        return replace(store, image_names=self.source.picture_names)

    def _make(self, made_of: str, on_progress: Progress) -> None:
        """Write the cache file; its pixels are no longer mapped when this returns."""
        classes = self.source.classes
        problems = [*self._miscounted(classes), *self.source.problems]
        if not sum(classes.values()):
            raise BrokenError(self.source.where, problems)
        side = official().side
        decoding = Decoding(side, self.resize, on_progress)
        try:
            with building(self.file, Plan("mini-imagenet", (3, side, side), classes, made_of)) as (pixels, notes):
                problems += self.source.fill(pixels, decoding)
                if problems:
                    raise BrokenError(self.source.where, problems)
                notes["notes"] = json.dumps(decoding.notes())
        except OSError as error:
            raise DataError(
                f"cannot write {self.file} ({error.strerror or error}); set TORCHREPTILE_CACHE to a writable folder"
            ) from error

    @property
    def file(self) -> Path:
        """The cache file: one per folder, split and filter, rewritten when the sources change."""
        place = hashlib.sha256(f"{self.folder.resolve()} {self.resize}".encode()).hexdigest()[:8]
        return cache_dir() / f"mini-imagenet-{self.split}-{official().side}-{place}.safetensors"

    def notes(self) -> dict[str, int]:
        """Return how many pictures were converted in which way, from the cache file; empty where there is none."""
        try:
            with safe_open(self.file, framework="pt") as file:
                notes: dict[str, int] = json.loads(file.metadata()["notes"])
                return notes
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return {}

    def _made_of(self) -> str:
        """Return a hash of what the pixels depend on: every file's name, size and modification time, and the filter."""
        what = [VERSION, official().side, self.resize, self.source.stamp()]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _miscounted(self, classes: dict[str, int]) -> list[str]:
        """Return a problem for every wrong number of classes or pictures."""
        expected, where = official(), self.source.where
        wanted = expected.classes[self.split]
        wrong = [f"{where}: {len(classes)} classes, not {wanted}"] if len(classes) != wanted else []
        return wrong + [
            f"{where}: class {name} has {count} pictures, not {expected.images}"
            for name, count in classes.items()
            if count != expected.images
        ]
