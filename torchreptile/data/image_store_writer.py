"""Writing of a store too large to be in memory twice: its pixels are decoded straight into the file."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchreptile.core.files import replacing
from torchreptile.data.image_store import FORMAT, ImageStore

SPARE = 4096  # bytes of the header reserved for the notes, which are known only at the end


@dataclass(frozen=True)
class Plan:
    """The layout of a store that is about to be written.

    Attributes:
        name: name of the data set.
        shape: (C, H, W) of every image, or (C, L) of every series.
        classes: class name -> number of images, in the order of the images.
        source: identifies what the store is made from, for :meth:`ImageStore.load`.
    """

    name: str
    shape: tuple[int, ...]
    classes: dict[str, int]
    source: str

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(self.classes.values())


@contextmanager
def building(path: Path, plan: Plan) -> Iterator[tuple[NDArray[np.uint8], dict[str, str]]]:
    """Yield an array of pixels to fill, and a dict for notes that are stored in the header of the file.

    The pixels are memory-mapped, so what is written need not stay in memory. When the block ends, the file is moved to
    ``path``; if it ends with an exception, ``path`` is left as it was.

    Yields:
        (N, C, H, W) uint8 to write to, and the dict of notes, which may hold up to 2 KB.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    sizes = np.array(list(plan.classes.values()), dtype="<i8")
    room = 8 + _aligned(len(_header(plan, {}, "0" * 64)) + SPARE)
    start = room + sizes.nbytes
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        with temporary.open("r+b") as file:
            _reserve(file.fileno(), start + plan.images * math.prod(plan.shape))
        pixels = np.memmap(temporary, np.uint8, "r+", start, (plan.images, *plan.shape))
        notes: dict[str, str] = {}
        yield np.asarray(pixels), notes
        pixels.flush()
        store = ImageStore(
            torch.from_numpy(np.asarray(pixels)), torch.from_numpy(sizes), tuple(plan.classes), plan.name
        )
        head = _header(plan, notes, store.fingerprint).ljust(room - 8)
        if len(head) > room - 8:
            raise ValueError(f"notes have {len(json.dumps(notes))} bytes; there is room for {SPARE}")
        with temporary.open("r+b") as file:
            file.write(len(head).to_bytes(8, "little") + head + sizes.tobytes())


def _header(plan: Plan, notes: dict[str, str], fingerprint: str) -> bytes:
    """Return the header of the safetensors file: the offset of every tensor, and the metadata, as JSON."""
    start = 8 * len(plan.classes)
    end = start + plan.images * math.prod(plan.shape)
    known = {"format": FORMAT, "name": plan.name, "source": plan.source, "fingerprint": fingerprint}
    head: dict[str, Any] = {
        "__metadata__": notes | known | {"class_names": json.dumps(list(plan.classes))},
        "class_sizes": {"dtype": "I64", "shape": [len(plan.classes)], "data_offsets": [0, start]},
        "images": {"dtype": "U8", "shape": [plan.images, *plan.shape], "data_offsets": [start, end]},
    }
    return json.dumps(head).encode()


def _aligned(size: int) -> int:
    """Return ``size`` rounded up to a multiple of 8."""
    return -(-size // 8) * 8


def _reserve(file: int, size: int) -> None:
    """Allocate ``size`` bytes on disk now: a disk that fills up during writes to mapped memory kills the process."""
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
