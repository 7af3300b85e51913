"""mini-ImageNet (Vinyals et al. 2016) with the split of Ravi & Larochelle 2017: 64/16/20 classes, 600 pictures each.

It cannot be downloaded, as the pictures are ImageNet's; people have it in many forms. In the folder that
``--data-root`` or ``$TORCHREPTILE_DATA/mini-imagenet`` names, each split is looked for in these, in this order:

1. ``images-train.tar`` (or ``.tar.xz``, ``.tar.gz``) with the list ``train.csv``
2. ``images/`` with ``train.csv``
3. ``train/CLASS/*.jpg``
4. ``mini-imagenet-cache-train.pkl`` or ``miniImageNet_category_split_train_phase_train.pickle``
5. the training folder of ILSVRC-2012, ``train/n01532829/n01532829_123.JPEG``, with ``train.csv``

The csv lists have the columns filename and label. Their file names are no names of ILSVRC's: of
``n0153282900000005.jpg`` the last eight digits are the place, from 1, in the list of the files of class n01532829
ordered by the number behind the underscore (ordered by name, other pictures come out). This is how the published
generators build the set (https://github.com/yaoyao-liu/mini-imagenet-tools); it needs ILSVRC's classes whole.

Pictures are squashed to 84 x 84, not cut, and made RGB; pictures of that size are left as they are.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open

from torchreptile.core.config import Resize
from torchreptile.core.errors import DataError
from torchreptile.core.paths import cache_dir, data_dir
from torchreptile.data.image_store import ImageStore
from torchreptile.data.image_store_writer import Plan, building
from torchreptile.data.mini_imagenet.layouts import find
from torchreptile.data.mini_imagenet.sources import Decoding, Progress, Source
from torchreptile.data.splits import SPLITS, MissingSplit, Split, Splits

VERSION = 1  # of how pictures become pixels; a new one makes every cached store anew


@dataclass(frozen=True)
class Expected:
    """What mini-ImageNet must hold; tests take less.

    Attributes:
        classes: in every split.
        images: of every class.
        side: height and width, pixels.
    """

    classes: dict[Split, int] = field(default_factory=lambda: {"train": 64, "val": 16, "test": 20})
    images: int = 600
    side: int = 84


class BrokenError(DataError):
    """Pictures that are missing, damaged or foreign.

    Attributes:
        problems: all of them, one line each.
    """

    def __init__(self, where: str, problems: list[str]) -> None:
        self.problems = problems
        shown = "; ".join(problems[:3]) + ("; ..." if len(problems) > 3 else "")
        super().__init__(
            f"{where}: {len(problems):,} {'problem' if len(problems) == 1 else 'problems'}: {shown}"
            " (reptile data prepare mini-imagenet names all)"
        )


def official() -> Expected:
    """mini-ImageNet as published."""
    return Expected()


def root(data_root: str) -> Path:
    """The folder that holds the data set.

    Raises:
        DataError: there is none.
    """
    own = data_dir()
    if not data_root and own is None:
        raise DataError(
            "mini-imagenet cannot be downloaded: its pictures are ImageNet's. Give --data-root FOLDER, or set "
            "TORCHREPTILE_DATA=DIR with DIR/mini-imagenet; reptile data prepare --help says what may be in it"
        )
    folder = Path(data_root).expanduser() if data_root or own is None else own / "mini-imagenet"
    if not folder.is_dir():
        said = "--data-root" if data_root else "TORCHREPTILE_DATA"
        what = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"mini-imagenet: {folder} {what}; {said} must lead to a folder with the data set")
    return folder


def sources(folder: Path) -> dict[Split, Source | MissingSplit]:
    """Every split of the data set in ``folder``, or why it is not there; no picture is read.

    Raises:
        DataError: nothing is there, a list cannot be read, or a class is in two splits.
    """
    expected = official()
    found = {split: find(folder, split, expected.images, expected.side) for split in SPLITS}
    there = {split: source for split, source in found.items() if not isinstance(source, MissingSplit)}
    if not there:
        reasons = "; ".join(source.reason for source in found.values() if isinstance(source, MissingSplit))
        raise DataError(f"{reasons}. reptile data prepare --help says what may be in {folder}")
    owners: dict[str, Split] = {}
    for split, source in there.items():
        for name in source.named:
            if name in owners:
                raise DataError(f"{folder}: class {name} is in {owners[name]} and in {split}; it may be in one alone")
            owners[name] = split
    return found


def split(data_root: str, resize: Resize) -> Splits:
    """The three splits; each is made ready when it is first used, and kept in the cache.

    Raises:
        DataError: see :func:`sources`; what is wrong with a split shows when that is used.
    """
    folder = root(data_root)
    found = sources(folder)

    def member(name: Split) -> MissingSplit | Loader:
        source = found[name]
        return source if isinstance(source, MissingSplit) else Loader(folder, name, source, resize)

    return Splits(*(member(name) for name in SPLITS))


@dataclass(frozen=True)
class Loader:
    """Makes one split ready, or takes it from the cache.

    Attributes:
        folder: of the data set.
        split: which one.
        source: its pictures.
        resize: for pictures of another size.
    """

    folder: Path
    split: Split
    source: Source
    resize: Resize

    def __call__(self, on_progress: Progress = lambda done, total: None) -> ImageStore:
        """The pictures as (N, 3, 84, 84) uint8, memory-mapped.

        Raises:
            BrokenError: naming every picture that is missing, damaged or foreign.
            DataError: an archive, list or pickle that cannot be read, or a cache that cannot be written.
        """
        made_of = self._made_of()
        if self.file.is_file():
            with suppress(DataError):
                return ImageStore.load(self.file, made_of)
        self._make(made_of, on_progress)
        return ImageStore.load(self.file, made_of)

    def _make(self, made_of: str, on_progress: Progress) -> None:
        """Write the cache file; its pixels are not mapped any more when this returns."""
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
                f"cannot write {self.file} ({error.strerror or error}); set TORCHREPTILE_CACHE to a folder that can"
            ) from error

    @property
    def file(self) -> Path:
        """Where the split is kept: one file for every folder and filter, made again when something in it changes."""
        place = hashlib.sha256(f"{self.folder.resolve()} {self.resize}".encode()).hexdigest()[:8]
        return cache_dir() / f"mini-imagenet-{self.split}-{official().side}-{place}.safetensors"

    def notes(self) -> dict[str, int]:
        """What was done to how many pictures, as kept with them; nothing where they are not ready."""
        try:
            with safe_open(self.file, framework="pt") as file:
                notes: dict[str, int] = json.loads(file.metadata()["notes"])
                return notes
        except (OSError, SafetensorError, KeyError, TypeError, ValueError):
            return {}

    def _made_of(self) -> str:
        """What the pixels depend on, as a hash: every file's name, size and time of change, and the filter."""
        what = [VERSION, official().side, self.resize, self.source.stamp()]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _miscounted(self, classes: dict[str, int]) -> list[str]:
        expected, where = official(), self.source.where
        wanted = expected.classes[self.split]
        wrong = [f"{where}: {len(classes)} classes, not {wanted}"] if len(classes) != wanted else []
        return wrong + [
            f"{where}: class {name} has {count} pictures, not {expected.images}"
            for name, count in classes.items()
            if count != expected.images
        ]
