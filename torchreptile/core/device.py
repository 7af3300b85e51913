"""The device to compute on, its precision, and how freed memory is handled."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchreptile.core.distributed.launcher import launcher_number
from torchreptile.core.errors import ConfigError

# The parameters of mallopt and the largest values it accepts for them (glibc's malloc.h).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_TRIM, LARGEST_MMAP = 2**31 - 1, 32 * 2**20


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names; auto takes a GPU if there is one.

    Where several processes run on one machine, each takes the GPU of its local rank.

    Raises:
        ConfigError: this machine has no such device.

    >>> choose_device("cpu")
    device(type='cpu')
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
        device = torch.device("cuda", launcher_number("LOCAL_RANK"))
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device is {name}, but torch sees {torch.cuda.device_count()} GPUs here; try --device cpu")
    return device


@contextmanager
def precision_of(device: torch.device, precision: str) -> Iterator[None]:
    """Compute in full fp32 on ``device`` unless TF32 is asked for, whatever the caller has set PyTorch to.

    By default PyTorch rounds a GPU's convolutions, and a caller may have allowed it to round a CPU's matrix products.

    Args:
        device: the device; a GPU also becomes the current one.
        precision: fp32, tf32 or bf16.
    """
    if device.type != "cuda":
        allowed = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(allowed)
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
    """Make the C library reuse memory that this process frees instead of returning it to the system (glibc only).

    Every step frees and allocates activations of several megabytes. Memory that was returned to the system is zeroed
    and mapped again page by page, which for large feature maps takes as long as the arithmetic.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM)
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP)
