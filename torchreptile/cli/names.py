"""What several commands make of what they were given."""

from __future__ import annotations

from pathlib import Path

from torchreptile.errors import ConfigError


def at_least_one(workers: int) -> int:
    """The number of processes.

    Raises:
        ConfigError: there are none.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}; it must be at least 1")
    return workers


def free(path: Path) -> Path:
    """The path, or NAME-2, NAME-3 ... where that is taken."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found
