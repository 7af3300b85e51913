"""What a measured number depends on besides the settings: versions, hardware and peak memory."""

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
    """Return the command, versions, processor, threads and GPU, ready for JSON.

    Args:
        device: the device in use; its name is recorded if it is a GPU. By default the machine's GPU is named, used or
            not.
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
    """Return one environment per training session of a run, in order, from the content of its env.json."""
    resumed = environment.get("resumed")
    return [environment, *(resumed if isinstance(resumed, list) else [])]


def require_environment(content: Any) -> dict[str, Any]:
    """Return the content of an env.json, or of an environment in another file, once its types are known to be right.

    Raises:
        ValueError: it is not one; the message names what is wrong.

    Example:
        >>> require_environment({"torch": "2.13.0", "resumed": [{"threads": 2}]})
        {'torch': '2.13.0', 'resumed': [{'threads': 2}]}
        >>> require_environment({"resumed": [1]})
        Traceback (most recent call last):
            ...
        ValueError: resumed is not a list of sessions
    """
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    resumed = content.get("resumed", [])
    if not isinstance(resumed, list) or not all(isinstance(session, dict) for session in resumed):
        raise ValueError("resumed is not a list of sessions")
    for session in [{name: value for name, value in content.items() if name != "resumed"}, *resumed]:
        for name, value in session.items():
            words = isinstance(value, list) and all(isinstance(word, str) for word in value)  # earlier commands
            if not words and not isinstance(value, str | int | float | None):
                raise ValueError(f"{name} is not a text or a number")
            if name == "threads" and type(value) not in (int, type(None)):
                raise ValueError(f"threads is {value!r}, not a number")
    return content


def hardware(environment: dict[str, Any]) -> str:
    """Return the GPU or processor of a run; of a run resumed elsewhere, every one in order.

    >>> hardware({"processor": "AMD EPYC", "gpu": None, "resumed": [{"gpu": "NVIDIA H100"}]})
    'AMD EPYC, then NVIDIA H100'
    """
    return ", then ".join(dict.fromkeys(map(_device_name, sessions(environment))))


def computed_by(session: dict[str, Any]) -> str:
    """Return the hardware, threads and torch version of one session.

    >>> computed_by({"processor": "AMD EPYC", "gpu": None, "threads": 2, "torch": "2.13.0"})
    'AMD EPYC, 2 threads, torch 2.13.0'
    """
    threads = session.get("threads")
    return f"{_device_name(session)}, {threads} thread{'s' * (threads != 1)}, torch {session.get('torch')}"


def _device_name(session: dict[str, Any]) -> str:
    """The GPU or else the processor of one session; empty where neither was recorded."""
    return str(session.get("gpu") or session.get("processor") or session.get("machine") or "")


def _gpu(device: torch.device | None) -> str | None:
    if device is None:
        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def _program() -> list[str]:
    """Return the words of the command that was started; ``python -m torchreptile`` is the command ``reptile``."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return ["reptile"] if program.parent.name == "torchreptile" else ["python", "-m", program.parent.name]
    return [program.name or "python"]


def _processor() -> str:
    """Return the name of the processor, or its architecture where the system does not give a name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def peak_mib() -> float:
    """Return the peak memory of this process in MiB."""
    if LINUX_STATUS.is_file():  # on Linux, getrusage starts from the peak of the parent process
        fields = dict(line.split(":", 1) for line in LINUX_STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
