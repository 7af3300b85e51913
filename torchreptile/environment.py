"""What a number depends on besides its settings: versions and hardware, to be kept beside it."""

from __future__ import annotations

import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from torchreptile import __version__


def environment() -> dict[str, Any]:
    """Command, versions, processor, threads and GPU, ready for JSON."""
    return {
        "command": shlex.join([*_program(), *sys.argv[1:]]),
        "torchreptile": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


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
