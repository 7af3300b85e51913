"""The forms in which one split of mini-ImageNet comes: picture files, a tar archive, a pickle.

Each says what it holds, what its cached pixels depend on, and fills an array with them; whatever is wrong is
collected, so that all of it can be named at once.
"""

from __future__ import annotations

import io
import os
import stat
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torchreptile.core.config import Resize
from torchreptile.data.mini_imagenet.tar_stream import RefusedError, stream
from torchreptile.data.own_images.decode import FORMATS, Picture, PictureError, decode_all

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]
Stamp = list[tuple[str, int, int]]

BATCH = 1024  # members of an archive that are decoded together
BATCH_BYTES = 64 * 2**20  # and at most so many bytes of them, but for the last


@dataclass
class Decoding:
    """How pictures become pixels, and what was special about them.

    Attributes:
        side: height and width, pixels; other pictures are squashed to it, as in the published results.
        resize: the filter for those.
        on_progress: called with the number of pictures done and their total.
        special: the mode and the size of every picture that is not RGB or not side x side.
    """

    side: int
    resize: Resize
    on_progress: Progress
    special: list[tuple[str, tuple[int, int]]] = field(default_factory=list)

    def decode(
        self, pictures: Sequence[Picture], done: int, total: int, into: Pixels | None = None
    ) -> tuple[Tensor, list[str]]:
        """(pixels (N, 3, side, side) uint8, problems); ``done`` of ``total`` were decoded before."""
        noted = [Picture(picture.name, partial(self._noted, picture)) for picture in pictures]

        def report(now: int, _: int) -> None:
            self.on_progress(done + now, total)

        return decode_all(noted, self.side, 3, self.resize, report, into, squash=True)

    def _noted(self, picture: Picture) -> bytes:
        content = picture.read()
        with suppress(Exception), Image.open(io.BytesIO(content), formats=FORMATS) as image:  # decode() tells of it
            if image.mode != "RGB" or image.size != (self.side, self.side):
                self.special.append((image.mode, image.size))
        return content

    def notes(self) -> dict[str, int]:
        """For people: what was done to how many pictures."""
        modes = Counter(f"of mode {mode} made RGB" for mode, _ in self.special if mode != "RGB")
        resized = sum(size != (self.side, self.side) for _, size in self.special)
        return dict(modes) | ({f"brought to {self.side}x{self.side} ({self.resize})": resized} if resized else {})


class Source(ABC):
    """One split, as it lies on disk.

    Attributes:
        where: what it is made of, for people.
        problems: what is wrong with it beside its pictures.
    """

    where: str
    problems: tuple[str, ...]

    @property
    @abstractmethod
    def classes(self) -> dict[str, int]:
        """Class name -> number of pictures, sorted by name."""

    @property
    def named(self) -> list[str]:
        """The classes that can be told without reading the pictures, to see that no two splits share one."""
        return list(self.classes)

    @abstractmethod
    def stamp(self) -> Stamp:
        """(name, bytes, time of change) of every file that the pixels are made of."""

    @abstractmethod
    def fill(self, pixels: Pixels, decoding: Decoding) -> list[str]:
        """Write (N, 3, side, side), classes one after another; returns what is wrong with which pictures."""


@final
@dataclass(frozen=True)
class Files(Source):
    """Picture files: class name -> their paths, in order."""

    where: str
    files: dict[str, list[Path]]
    problems: tuple[str, ...] = ()

    @property
    def classes(self) -> dict[str, int]:
        """Class name -> number of pictures."""
        return {name: len(paths) for name, paths in self.files.items()}

    def stamp(self) -> Stamp:
        """Of every picture file."""
        return [stamp_of(path) for paths in self.files.values() for path in paths]

    def fill(self, pixels: Pixels, decoding: Decoding) -> list[str]:
        """Read and decode every file."""
        paths = [path for paths in self.files.values() for path in paths]
        pictures = [Picture(str(path), partial(_content, path)) for path in paths]
        _, problems = decoding.decode(pictures, 0, len(pictures), pixels)
        return problems


def stamp_of(path: Path) -> tuple[str, int, int]:
    """Name, bytes and time of change of a file; of one that is missing, zeros."""
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_size, found.st_mtime_ns


def _content(path: Path) -> bytes:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise PictureError("missing") from None
    if not stat.S_ISREG(mode):  # to open a pipe would wait for ever
        raise PictureError("not a file")
    return path.read_bytes()


@final
@dataclass(frozen=True)
class Archive(Source):
    """A tar archive and the list of what is in it: class name -> file names, in order."""

    path: Path
    list_path: Path
    files: dict[str, list[str]]
    problems: tuple[str, ...] = ()

    @property
    def where(self) -> str:  # type: ignore[override]
        """Both files."""
        return f"{self.path} with {self.list_path.name}"

    @property
    def classes(self) -> dict[str, int]:
        """Class name -> number of pictures, as listed."""
        return {name: len(files) for name, files in self.files.items()}

    def stamp(self) -> Stamp:
        """Of the archive and the list."""
        return [stamp_of(self.path), stamp_of(self.list_path)]

    def fill(self, pixels: Pixels, decoding: Decoding) -> list[str]:
        """Decode in one pass through the archive, some members at a time."""
        names = [name for files in self.files.values() for name in files]
        rows = {name: row for row, name in enumerate(names)}
        problems: list[str] = []
        batch: list[tuple[int, Picture]] = []
        seen: set[str] = set()
        done = size = 0

        def decode_batch() -> None:
            nonlocal done, size
            made, wrong = decoding.decode([picture for _, picture in batch], done, len(rows))
            pixels[[row for row, _ in batch]] = made.numpy()
            problems.extend(wrong)
            done, size = done + len(batch), 0
            batch.clear()

        for member, content in stream(self.path):
            name = PurePosixPath(member).name
            if is_litter(name):
                continue
            full = f"{self.path}: {member}"
            if isinstance(content, RefusedError):
                problems.append(f"{full}: {content}")
            elif name not in rows:
                problems.append(f"{full}: not in {self.list_path.name}")
            elif name in seen:
                problems.append(f"{full}: a second picture of that name")
            else:
                batch.append((rows[name], Picture(full, content.__bytes__)))
                size += len(content)
            seen.add(name)
            if len(batch) >= BATCH or size >= BATCH_BYTES:
                decode_batch()
        if batch:
            decode_batch()
        return problems + [f"{self.path}: {name}: missing" for name in names if name not in seen]


def is_litter(name: str) -> bool:
    """What systems leave in folders and archives by themselves; it is passed over."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")
