"""Sources of one split of mini-ImageNet: picture files or a tar archive (for pickles see ``pickles.py``).

Each source knows its classes and which files its pixels depend on, and fills an array with the pixels. Problems are
collected, so that all of them can be reported at once.
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
BATCH_BYTES = 64 * 2**20  # a batch also ends once it has this many bytes


@dataclass
class Decoding:
    """The conversion of pictures to pixels, with notes on those that were not RGB or of another size.

    Attributes:
        side: height and width, pixels; other pictures are squashed to it, as in the published results.
        resize: filter for pictures of another size.
        on_progress: called with the number of pictures done and their total.
        converted: mode and size of every picture that is not RGB or not side x side.
    """

    side: int
    resize: Resize
    on_progress: Progress
    converted: list[tuple[str, tuple[int, int]]] = field(default_factory=list)

    def decode(
        self, pictures: Sequence[Picture], done: int, total: int, into: Pixels | None = None
    ) -> tuple[Tensor, list[str]]:
        """Decode pictures.

        Args:
            pictures: N pictures.
            done: pictures of the split that were decoded before, for the progress.
            total: pictures of the split.
            into: (N, 3, side, side) uint8 to write to; made if None.

        Returns:
            The (N, 3, side, side) uint8 pixels, and the problems.
        """
        noted = [Picture(picture.name, partial(self._read, picture)) for picture in pictures]

        def report(now: int, _: int) -> None:
            self.on_progress(done + now, total)

        return decode_all(noted, self.side, 3, self.resize, report, into, squash=True)

    def _read(self, picture: Picture) -> bytes:
        """Read the file of a picture and note its mode and size if they must be converted."""
        content = picture.read()
        with suppress(Exception), Image.open(io.BytesIO(content), formats=FORMATS) as image:  # decode() reports errors
            if image.mode != "RGB" or image.size != (self.side, self.side):
                self.converted.append((image.mode, image.size))
        return content

    def notes(self) -> dict[str, int]:
        """Return each kind of conversion, as text, with the number of pictures it was applied to."""
        modes = Counter(f"of mode {mode} made RGB" for mode, _ in self.converted if mode != "RGB")
        resized = sum(size != (self.side, self.side) for _, size in self.converted)
        return dict(modes) | ({f"brought to {self.side}x{self.side} ({self.resize})": resized} if resized else {})


class Source(ABC):
    """One split on disk.

    Attributes:
        where: the files it is made from, as text.
        problems: problems other than those of single pictures.
    """

    where: str
    problems: tuple[str, ...]

    @property
    @abstractmethod
    def classes(self) -> dict[str, int]:
        """Number of pictures of each class, sorted by class name."""

    @property
    def named(self) -> list[str]:
        """The classes that are known without reading pictures, to check that no two splits share one."""
        return list(self.classes)

    @property
    def picture_names(self) -> tuple[str, ...]:
        """Names of the pictures' files in the order of the pixels; nothing where the pictures have none."""
        return ()

    @abstractmethod
    def stamp(self) -> Stamp:
        """Return (name, bytes, modification time) of every file that the pixels depend on."""

    @abstractmethod
    def fill(self, pixels: Pixels, decoding: Decoding) -> list[str]:
        """Decode every picture into an array.

        Args:
            pixels: (N, 3, side, side) uint8 to fill, classes one after another.
            decoding: the conversion.

        Returns:
            The problems, one line each, with the names of the pictures.
        """


@final
@dataclass(frozen=True)
class Files(Source):
    """A split in picture files.

    Attributes:
        where: the files it is made from, as text.
        files: class name -> paths, in order.
        problems: problems other than those of single pictures.
    """

    where: str
    files: dict[str, list[Path]]
    problems: tuple[str, ...] = ()

    @property
    def classes(self) -> dict[str, int]:
        """Number of pictures of each class."""
        return {name: len(paths) for name, paths in self.files.items()}

    @property
    def picture_names(self) -> tuple[str, ...]:
        """Names of the files, without their folders."""
        return tuple(path.name for paths in self.files.values() for path in paths)

    def stamp(self) -> Stamp:
        """Return (name, bytes, modification time) of every picture file."""
        return [stamp_of(path) for paths in self.files.values() for path in paths]

    def fill(self, pixels: Pixels, decoding: Decoding) -> list[str]:
        """Decode every file into ``pixels``, (N, 3, side, side) uint8, and return the problems."""
        paths = [path for paths in self.files.values() for path in paths]
        pictures = [Picture(str(path), partial(_content, path)) for path in paths]
        _, problems = decoding.decode(pictures, 0, len(pictures), pixels)
        return problems


def stamp_of(path: Path) -> tuple[str, int, int]:
    """Return name, bytes and modification time (ns) of a file; zeros for one that is missing."""
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), found.st_size, found.st_mtime_ns


def _content(path: Path) -> bytes:
    """Read a picture file, which must be a regular file."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise PictureError("missing") from None
    if not stat.S_ISREG(mode):  # opening a pipe would block forever
        raise PictureError("not a file")
    return path.read_bytes()


@final
@dataclass(frozen=True)
class Archive(Source):
    """A split in a tar archive with a list of its members.

    Attributes:
        path: the archive.
        list_path: the csv list.
        files: class name -> file names, in order.
        problems: problems other than those of single pictures.
    """

    path: Path
    list_path: Path
    files: dict[str, list[str]]
    problems: tuple[str, ...] = ()

    @property
    def where(self) -> str:  # type: ignore[override]
        """The archive and its list, as text."""
        return f"{self.path} with {self.list_path.name}"

    @property
    def classes(self) -> dict[str, int]:
        """Number of pictures of each class, as listed."""
        return {name: len(files) for name, files in self.files.items()}

    @property
    def picture_names(self) -> tuple[str, ...]:
        """Names of the files, as listed."""
        return tuple(name for names in self.files.values() for name in names)

    def stamp(self) -> Stamp:
        """Return (name, bytes, modification time) of the archive and the list."""
        return [stamp_of(self.path), stamp_of(self.list_path)]

    def fill(self, pixels: Pixels, decoding: Decoding) -> list[str]:
        """Decode the archive in one pass into ``pixels``, (N, 3, side, side) uint8, and return the problems."""
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
    """Return whether a file of this name was left by an operating system; such files are ignored."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")
