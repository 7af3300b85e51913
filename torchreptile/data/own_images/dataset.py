"""Own images: ``--data FOLDER`` or ``--data FILE.csv``, decoded once and divided by classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from torchreptile.core.config import Resize, TaskConfig
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.cache import prepared
from torchreptile.data.image_store import ImageStore
from torchreptile.data.own_images.class_folders import Catalogue, refuse, scan_folders
from torchreptile.data.own_images.csv_labels import scan_csv
from torchreptile.data.own_images.decode import Picture, decode_all
from torchreptile.data.splits import SPLITS, MissingSplit, Source, Split, Splits, by_ratio

VERSION = 1  # of how pictures become pixels; a new one makes every cached store anew

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Form:
    """What every picture is brought to.

    Attributes:
        side: height and width, pixels.
        channels: 1 grey, 3 colour.
        resize: the filter.
    """

    side: int
    channels: int
    resize: Resize

    @classmethod
    def of(cls, task: TaskConfig) -> Form:
        """As the settings say."""
        resize: Resize = "lanczos" if task.resize == "auto" else task.resize
        return cls(task.own_image_size, 1 if task.grey else 3, resize)


def scan(path: Path) -> Catalogue:
    """What is at ``path``: a folder of class folders, or a csv file.

    Raises:
        DataError: nothing usable; everything that is wrong is named.
    """
    if path.is_dir():
        return scan_folders(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return scan_csv(path)
    what = "is neither a folder nor a .csv file; unpack archives first" if path.exists() else "does not exist"
    raise DataError(f"--data {path} {what}")


def load(catalogue: Catalogue, form: Form, on_progress: Progress = lambda done, total: None) -> ImageStore:
    """All classes of ``catalogue``, decoded on first use and kept in the cache.

    The cache goes by the names, sizes and times of the files: a folder that has changed is decoded again.

    Raises:
        DataError: naming every picture that cannot be decoded.
    """
    files = {name: [(f.name, f.size, f.changed) for f in found] for name, found in catalogue.classes.items()}
    what = [VERSION, str(catalogue.root), form.side, form.channels, form.resize, files]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return prepared(f"folder-{key[:32]}.safetensors", lambda: _decode(catalogue, form, on_progress))


def _decode(catalogue: Catalogue, form: Form, on_progress: Progress) -> ImageStore:
    pictures = [Picture(f.name, f.path.read_bytes) for files in catalogue.classes.values() for f in files]
    images, problems = decode_all(pictures, form.side, form.channels, form.resize, on_progress)
    refuse(catalogue.root, problems)
    return ImageStore(
        images=images,
        class_sizes=torch.tensor([len(files) for files in catalogue.classes.values()]),
        class_names=tuple(catalogue.classes),
        name=catalogue.root.stem,
    )


def split(task: TaskConfig, on_progress: Progress = lambda done, total: None) -> Splits:
    """The own images that ``task.data`` names, divided as they say themselves, or by ``task.split_ratio``.

    Raises:
        ConfigError: a ratio that cannot be, or one for images that are divided already.
        DataError: the files cannot be used. What is in them shows when a split is used.
    """
    catalogue = scan(Path(task.data))
    if catalogue.splits is None:
        parts = by_ratio(list(catalogue.classes), task.shares, task.split_seed)
        why = f"with split_ratio {'/'.join(f'{share:g}' for share in task.shares)}"
    elif task.split_ratio:
        raise ConfigError(
            f"split_ratio is {task.split_ratio}, but {catalogue.root} is divided into train, val and test already; "
            "leave it out"
        )
    else:
        parts = {part: [name for name, its in catalogue.splits.items() if its == part] for part in SPLITS}
        why = "as it is divided"

    @cache
    def everything() -> ImageStore:
        return load(catalogue, Form.of(task), on_progress)

    def source(part: Split) -> Source:
        if not parts[part]:
            return MissingSplit(f"{catalogue.root} {why} has no {part} classes; take {_others(parts, part)}")
        return lambda: _part(everything(), parts[part], part)

    return Splits(*(source(part) for part in SPLITS))


def divided_by_ratio(task: TaskConfig) -> bool:
    """Whether these are own images whose division is drawn, so that one class more changes that of all others.

    Raises:
        DataError: the files cannot be used.
    """
    return bool(task.data) and scan(Path(task.data)).splits is None


def _others(parts: dict[Split, list[str]], part: Split) -> str:
    return " or ".join(other for other in SPLITS if parts[other] and other != part)


def _part(store: ImageStore, names: list[str], part: Split) -> ImageStore:
    """The classes of one split."""
    places = {name: index for index, name in enumerate(store.class_names)}
    return replace(store.select([places[name] for name in sorted(names)]), name=f"{store.name} ({part})")
