"""The user's own images: ``--data FOLDER`` or ``--data FILE.csv``, decoded once and divided by classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from torchreptile.core.config import Resize, TaskConfig
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.core.files import read_regular
from torchreptile.data.cache import prepared
from torchreptile.data.image_store import ImageStore
from torchreptile.data.own_images.class_folders import Catalogue, refuse, scan_folders
from torchreptile.data.own_images.csv_labels import scan_csv
from torchreptile.data.own_images.decode import MAX_BYTES, NEARLY_BLACK, Picture, Size, decode_all
from torchreptile.data.splits import SPLITS, MissingSplit, Source, Split, Splits, by_ratio

VERSION = 2  # of the conversion of pictures to pixels; a new version invalidates every cached store

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Form:
    """The form that every picture is converted to.

    Attributes:
        size: height and width, pixels; one number for squares.
        channels: 1 for grey, 3 for colour.
        resize: filter for scaling.
    """

    size: Size
    channels: int
    resize: Resize

    @classmethod
    def of(cls, task: TaskConfig) -> Form:
        """Return the form that the settings ask for.

        Raises:
            ConfigError: pictures cannot have it.
        """
        resize: Resize = "lanczos" if task.resize == "auto" else task.resize
        shape = task.image_shape
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise ConfigError(
                f"shape is {task.shape}, but {task.data} holds pictures, of 1 or 3 channels x height x width; give "
                "such a shape, or series and other channels as a data set of your own (docs/own-dataset.md)"
            )
        channels, height, width = shape
        return cls(height if height == width else (height, width), channels, resize)


def scan(path: Path) -> Catalogue:
    """List the classes and files of a folder of class folders, or of a csv file; nothing is decoded.

    Raises:
        DataError: ``path`` is neither, or its content cannot be used; every problem is named.
    """
    if path.is_dir():
        return scan_folders(path)
    if path.suffix.lower() == ".csv" and path.is_file():
        return scan_csv(path)
    what = "is neither a folder nor a .csv file; unpack archives first" if path.exists() else "does not exist"
    raise DataError(f"--data {path} {what}")


def load(catalogue: Catalogue, form: Form, on_progress: Progress = lambda done, total: None) -> ImageStore:
    """Load all classes of ``catalogue``, decoded on first use and then cached.

    The cache is identified by the names, sizes and modification times of the files, so a folder that has changed is
    decoded again.

    Args:
        catalogue: the classes and their files.
        form: the form of the result.
        on_progress: called with the number of pictures done and their total.

    Raises:
        DataError: pictures cannot be decoded; all are named.
    """
    files = {name: [(f.name, f.size, f.changed) for f in found] for name, found in catalogue.classes.items()}
    what = [VERSION, str(catalogue.root), form.size, form.channels, form.resize, files]
    key = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    store = prepared(f"folder-{key[:32]}.safetensors", lambda: _decode(catalogue, form, on_progress))
    return replace(store, image_names=tuple(f.name for found in catalogue.classes.values() for f in found))


def _decode(catalogue: Catalogue, form: Form, on_progress: Progress) -> ImageStore:
    """Decode every picture of the catalogue."""
    pictures = [
        Picture(f.name, partial(read_regular, f.path, MAX_BYTES)) for files in catalogue.classes.values() for f in files
    ]
    images, problems = decode_all(pictures, form.size, form.channels, form.resize, on_progress)
    refuse(catalogue.root, problems or _nearly_black(pictures, images))
    return ImageStore(
        images=images,
        class_sizes=torch.tensor([len(files) for files in catalogue.classes.values()]),
        class_names=tuple(catalogue.classes),
        name=catalogue.root.stem,
    )


def _nearly_black(pictures: Sequence[Picture], images: Tensor) -> list[str]:
    """Return a problem for every picture that shows nearly nothing, such as a mask of 0 and 1; all black is taken."""
    brightest = images.flatten(1).amax(1)
    dark = ((brightest > 0) & (brightest < NEARLY_BLACK)).nonzero().flatten().tolist()
    return [
        f"{pictures[index].name}: nearly black (brightest value {brightest[index]} of 255); stretch its values to the "
        "full range, or leave it out"
        for index in dark
    ]


def split(task: TaskConfig, on_progress: Progress = lambda done, total: None) -> Splits:
    """Return the splits of the images in ``task.data``: as they are divided there, or by ``task.split_ratio``.

    Args:
        task: the settings.
        on_progress: called with the number of pictures done and their total, when a split is first used.

    Raises:
        ConfigError: the ratio is invalid, or given for images that are divided already.
        DataError: the files cannot be used; pictures that cannot be decoded are reported when a split is used.
    """
    catalogue, form = scan(Path(task.data)), Form.of(task)
    if catalogue.splits is None:
        parts = by_ratio(list(catalogue.classes), task.shares, task.split_seed)
        why = f"with split_ratio {'/'.join(f'{share:g}' for share in task.shares)}"
    elif task.split_ratio:
        raise ConfigError(
            f"split_ratio is {task.split_ratio}, but {catalogue.root} is divided into train, val and test already; "
            "leave it out"
        )
    else:
        parts = {part: [name for name, its_split in catalogue.splits.items() if its_split == part] for part in SPLITS}
        why = "as it is divided"

    @cache
    def everything() -> ImageStore:
        return load(catalogue, form, on_progress)

    def source(part: Split) -> Source:
        if not parts[part]:
            return MissingSplit(f"{catalogue.root} {why} has no {part} classes; take {_others(parts, part)}")
        return lambda: _part(everything(), parts[part], part)

    return Splits(*(source(part) for part in SPLITS))


def divided_by_ratio(task: TaskConfig) -> bool:
    """Return whether the classes of ``task.data`` are divided at random, so that adding one changes all splits.

    Raises:
        DataError: the files cannot be used.
    """
    return bool(task.data) and scan(Path(task.data)).splits is None


def _others(parts: dict[Split, list[str]], part: Split) -> str:
    """Return the names of the other splits that have classes, as text."""
    return " or ".join(other for other in SPLITS if parts[other] and other != part)


def _part(store: ImageStore, names: list[str], part: Split) -> ImageStore:
    """Return a store of the classes of one split."""
    places = {name: index for index, name in enumerate(store.class_names)}
    return replace(store.select([places[name] for name in sorted(names)]), name=f"{store.name} ({part})")
