"""When compiling a network pays off, and whether torch.compile works on this machine."""

from __future__ import annotations

from functools import cache
from subprocess import SubprocessError

import torch

from torchreptile.core.errors import ConfigError

# Task-steps from which compiling pays off on a CPU: it takes from 10 seconds to a minute once per machine, and saves
# 1 to 3 ms per task-step of small maps on two cores, 10 ms of large maps.
COMPILE_FROM = 100_000
COMPILE_LARGE_FROM = 10_000
# Task-steps from which compiling pays off on a GPU: it takes 15 seconds for each of two or three sizes of mini-batch
# and saves 0.09 ms per task-step of small maps, so it breaks even at half a million. A published evaluation has as
# many, but 100 tasks at a time.
COMPILE_ON_GPU_FROM = 1_000_000


@cache
def compiler_works(device: torch.device | None = None) -> bool:
    """Whether torch.compile works on ``device``, by default a CPU, found by compiling a trivial function."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=device))
    except (RuntimeError, OSError, SubprocessError):  # no compiler, Python headers, Triton or disk space
        return False
    return True


def require_compiler(device: torch.device) -> None:
    """Refuse the execution ``compiled`` where torch.compile has no C++ compiler to work with.

    Args:
        device: where it will run; on a GPU, torch.compile reports by itself what it lacks.

    Raises:
        ConfigError: it is a CPU, and there is no working compiler.
    """
    if device.type == "cpu" and not compiler_works():
        raise ConfigError("execution compiled is not possible here: no working C++ compiler; auto takes another")
