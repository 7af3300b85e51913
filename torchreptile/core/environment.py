"""What a number depends on besides its settings: versions and hardware, to be kept beside it; and what it took."""

from __future__ import annotations

import platform
import resource
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from torchreptile.core.version import __version__

LINUX_STATUS = Path("/proc/self/status")


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """Command, versions, processor, threads and GPU, ready for JSON.

    Args:
        device: what is computed on: the GPU is named where it is one. By default the one there is, used or not.
    """
    return {
        "command": shlex.join([*_program(), *sys.argv[1:]]),
        "torchreptile": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": _gpu(device),
    }


def sessions(environment: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a run's env.json each place it was computed at, the first one first."""
    resumed = environment.get("resumed")
    return [environment, *(resumed if isinstance(resumed, list) else [])]


def _gpu(device: torch.device | None) -> str | None:
    if device is None:
        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _program() -> list[str]:
    """What was started: ``python -m torchreptile`` is the command ``reptile``."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return ["reptile"] if program.parent.name == "torchreptile" else ["python", "-m", program.parent.name]
    return [program.name or "python"]


def _processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_mib() -> float:
    """The most memory this process ever had in use."""
    if LINUX_STATUS.is_file():  # getrusage there begins with the peak of the process that started this one
        fields = dict(line.split(":", 1) for line in LINUX_STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
