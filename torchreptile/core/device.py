"""Which device computes, how exactly, and what becomes of its memory."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchreptile.core.errors import ConfigError

# mallopt's names for what it sets, and the most it takes for the second (malloc.h of glibc).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_TRIM, LARGEST_MMAP = 2**31 - 1, 32 * 2**20


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names; auto takes a GPU if there is one.

    Of several processes on one machine, each takes the GPU of its own local rank.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device is {name}; it must be auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device is {name}; it must be auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name}, but torch sees {torch.cuda.device_count()} GPUs here; try --device cpu")
    return device


@contextmanager
def precision_of(device: torch.device, precision: str) -> Iterator[None]:
    """Make ``fp32`` mean it on ``device``: PyTorch would let a GPU's convolutions round to TF32.

    Args:
        device: a GPU becomes the current one too.
        precision: fp32, tf32 or bf16.
    """
    if device.type != "cuda":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.cuda.device(device):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def keep_freed_memory() -> None:
    """Have the C library keep what this process frees, where it can be told to (glibc).

    Activations of megabytes are freed and asked for again at every step. Handed back to the system in between,
    each page of them is zeroed and mapped anew, which on large maps takes as long as the arithmetic.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM)
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP)
