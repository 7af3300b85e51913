"""Pickles of mini-ImageNet as they circulate, with their contents checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from torchreptile.core.errors import DataError
from torchreptile.data.mini_imagenet.safe_unpickle import read
from torchreptile.data.mini_imagenet.sources import Decoding, Pixels, Source, Stamp, stamp_of


@final
@dataclass(frozen=True)
class Pickle(Source):
    """A split in a pickle, in one of three forms.

    ``{"image_data": (N, 84, 84, 3) uint8, "class_dict": {class: [indices]}}`` (Ren et al. 2018), or
    ``{"data": (N, 84, 84, 3) uint8, "labels": [N], "catname2label": {class: label}}``, where the last is optional
    (Gidaris & Komodakis 2018), or a pair (data, labels).

    Attributes:
        path: the pickle.
        side: height and width that its images must have, pixels.
        problems: problems other than those of its content.
    """

    path: Path
    side: int
    problems: tuple[str, ...] = ()

    @property
    def where(self) -> str:  # type: ignore[override]
        """The path of the pickle, as text."""
        return str(self.path)

    @property
    def named(self) -> list[str]:
        """The classes known without reading the file: none, as it is large and read only when it is used."""
        return []

    def stamp(self) -> Stamp:
        """Return (name, bytes, modification time) of the pickle."""
        return [stamp_of(self.path)]

    @property
    def classes(self) -> dict[str, int]:
        """Number of pictures of each class, sorted by class name."""
        return {name: len(rows) for name, rows in self._content()[1].items()}

    def fill(self, pixels: Pixels, decoding: Decoding) -> list[str]:
        """Copy the images, class by class, into ``pixels``, (N, 3, side, side) uint8; there are no problems."""
        images, classes = self._content()
        done = 0
        for rows in classes.values():
            pixels[done : done + len(rows)] = images[rows].transpose(0, 3, 1, 2)
            done += len(rows)
            decoding.on_progress(done, len(pixels))
        return []

    def _content(self) -> tuple[Pixels, dict[str, list[int]]]:
        """Return all images, (N, side, side, 3) uint8, and class name -> rows, sorted by name.

        The file is read again each time, which is fast, so that it does not stay in memory.
        """
        try:
            return self._checked(read(self.path))
        except (ValueError, TypeError, LookupError, OverflowError, MemoryError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{self.path}: its content cannot be read ({reason}); get it again") from error

    def _checked(self, content: Any) -> tuple[Pixels, dict[str, list[int]]]:
        """Return images and classes from the content of a pickle in any of its three forms."""
        if isinstance(content, dict):
            content = {_text(key): value for key, value in content.items()}
        if isinstance(content, dict) and {"image_data", "class_dict"} <= set(content):
            images, classes = content["image_data"], content["class_dict"]
        elif isinstance(content, dict) and {"data", "labels"} <= set(content):
            images, classes = content["data"], _by_label(self.path, content["labels"], content.get("catname2label"))
        elif isinstance(content, (tuple, list)) and len(content) == 2:
            images, classes = content[0], _by_label(self.path, content[1], None)
        else:
            found = (
                f"a dict of {', '.join(map(str, content))[:200]}"
                if isinstance(content, dict)
                else type(content).__name__
            )
            raise DataError(f"{self.path}: holds {found}; it must hold image_data and class_dict, or data and labels")
        return _images(self.path, images, self.side), _rows(self.path, classes, len(images))


def _text(value: Any) -> str:
    """Return text from a string of Python 2 or 3."""
    return bytes(value).decode("latin1") if isinstance(value, (bytes, memoryview)) else str(value)


def _images(path: Path, images: Any, side: int) -> Pixels:
    """Check the images of a pickle and return them as (N, side, side, 3) uint8."""
    wanted = f"(N, {side}, {side}, 3) uint8"
    if isinstance(images, list) and images and all(isinstance(image, np.ndarray) for image in images):
        shapes = {image.shape for image in images}
        if len(shapes) == 1:
            images = np.stack(images)
    if not isinstance(images, np.ndarray):
        raise DataError(f"{path}: its images are a {type(images).__name__}; they must be an array, {wanted}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (side, side, 3):
        raise DataError(f"{path}: its images are {images.shape} {images.dtype}; they must be {wanted}")
    return images


def _by_label(path: Path, labels: Any, names: Any) -> dict[str, list[int]]:
    """Return class name -> rows, from a label for every row."""
    if isinstance(labels, np.ndarray):
        labels = labels.tolist()
    if not isinstance(labels, (list, tuple)) or not all(isinstance(label, (int, str, bytes)) for label in labels):
        raise DataError(f"{path}: its labels are a {type(labels).__name__}; they must be a list of numbers or names")
    class_names: dict[Any, str] = {}
    if isinstance(names, dict):
        class_names = {label: _text(name) for name, label in names.items() if isinstance(label, (int, str, bytes))}
    classes: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        name = class_names.get(label) or (f"class{label:03d}" if isinstance(label, int) else _text(label))
        classes.setdefault(name, []).append(row)
    return classes


def _rows(path: Path, classes: Any, count: int) -> dict[str, list[int]]:
    """Check a ``class_dict``: each of ``count`` rows must be in exactly one class."""
    if not isinstance(classes, dict):
        raise DataError(f"{path}: its class_dict is a {type(classes).__name__}; it must be a dict")
    checked: dict[str, list[int]] = {}
    for name, rows in classes.items():
        rows = (
            rows.tolist() if isinstance(rows, np.ndarray) else list(rows) if isinstance(rows, (list, tuple)) else None
        )
        if rows is None or not all(type(row) is int and 0 <= row < count for row in rows):
            raise DataError(f"{path}: class {_text(name)} must be a list of indices from 0 to {count - 1}")
        checked[_text(name)] = rows
    used = [row for rows in checked.values() for row in rows]
    if len(used) != count or len(set(used)) != count:
        raise DataError(
            f"{path}: {count} images, but its classes name {len(set(used))} of them, {len(used)} times in all"
        )
    return dict(sorted(checked.items()))
