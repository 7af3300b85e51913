"""Virtual environments of the peers, created on demand from requirements/NAME.txt in .venvs/NAME."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OURS = "torchreptile"  # runs in the current interpreter
MINUTES = 20


class UnavailableError(Exception):
    """An environment cannot be created here; the message says why."""


def interpreter(name: str) -> Path:
    """Return the Python of an environment, which is created first if it is missing or its requirements have changed.

    Raises:
        UnavailableError: pip failed.
    """
    if name == OURS:
        return Path(sys.executable)
    wanted, folder = (HERE / "requirements" / f"{name}.txt").read_text(), HERE / ".venvs" / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    made_from = folder / "made-from.txt"
    if not (made_from.is_file() and made_from.read_text() == wanted):
        print(f"creating the environment {name} in {folder}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        _call([sys.executable, "-m", "venv", str(folder)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _call([*pip, "-r", str(HERE / "requirements" / f"{name}.txt")])
        made_from.write_text(wanted)
    return python


def _call(words: list[str]) -> None:
    """Run a command, and raise an UnavailableError if it fails."""
    try:
        subprocess.run(words, check=True, timeout=60 * MINUTES, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"{' '.join(words[:4])} ...: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{' '.join(words[:4])} ...: not finished in {MINUTES} minutes") from error
