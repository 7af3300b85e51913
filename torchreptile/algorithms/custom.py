"""Algorithms of the user's own, named as ``FILE.py:CLASS``."""

from __future__ import annotations

import os

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import use_algorithm
from torchreptile.core.errors import ConfigError
from torchreptile.core.user_code import load_from_file


def load_algorithm(named: str) -> str:
    """Load an algorithm class from a Python file and make it known under its row's name.

    The file is run as Python code: name only one you trust.

    Args:
        named: ``FILE.py:CLASS``, a subclass of :class:`Algorithm` with an ``AlgorithmRow`` as its attribute ``row``.

    Returns:
        The name that settings know it by.

    Raises:
        ConfigError: the file fails, or the class is no such algorithm.
    """
    found = load_from_file("algorithm", named)
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise ConfigError(f"algorithm {named}: it must be a subclass of torchreptile.Algorithm")
    name = use_algorithm(found)
    if (path := os.path.abspath(named)) not in _loaded:
        _loaded.append(path)
    return name


def loaded_files() -> list[str]:
    """Return what was loaded in this process, for a process that works for it to load too."""
    return list(_loaded)


_loaded: list[str] = []
