"""Data sets beyond the built-in ones: registered by this process, or installed as entry points."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from torchreptile.core.config import DATASETS, FUNCTIONS
from torchreptile.core.errors import ConfigError
from torchreptile.core.user_code import described, names_a_file

ENTRY_POINTS = "torchreptile.datasets"
DatasetFunction = Callable[[], Any]
"""() -> images by class name, (n, C, H, W) uint8; or an ImageStore; or Splits."""

_registered: dict[str, DatasetFunction] = {}


def register_dataset(name: str, function: DatasetFunction) -> None:
    """Register a data set under a name, for this process.

    Args:
        name: name of the data set, as in ``--dataset``.
        function: called without arguments when the data are needed; returns a mapping from class names to images
            (n, C, H, W) uint8, an ``ImageStore``, or ``Splits``.

    Raises:
        ConfigError: the name belongs to a built-in or installed data set.

    Example:
        >>> import torch
        >>> register_dataset("noise", lambda: {f"class {k}": torch.zeros(20, 1, 28, 28).byte() for k in range(30)})
        >>> dataset_function("noise")()["class 0"].shape
        torch.Size([20, 1, 28, 28])
    """
    if name in (*DATASETS, *FUNCTIONS, "folder") or name in _installed():
        raise ConfigError(f"the name {name} belongs to another data set; register yours under another name")
    _registered[name] = function


def dataset_function(name: str) -> DatasetFunction:
    """Return the function of the data set called ``name``.

    Raises:
        ConfigError: there is none, or it is a file that this process was not asked to run, or its package fails.
    """
    if name in _registered:
        return _registered[name]
    if name not in _installed() and not names_a_file(name):
        known = ", ".join(dict.fromkeys([*DATASETS, "folder", *FUNCTIONS, *_installed(), *_registered]))
        raise ConfigError(f"dataset {name!r} is unknown; choose one of {known}, or FILE.py:FUNCTION of your own")
    if name not in _installed():
        raise ConfigError(f"dataset {name} is code, which is run only where you name it: add --dataset {name}")
    try:
        function: DatasetFunction = _installed()[name].load()
    except Exception as error:  # an import may raise anything
        raise ConfigError(f"dataset {name}: its package cannot be imported ({described(error)})") from error
    return function


@cache
def _installed() -> dict[str, EntryPoint]:
    """Return the data sets of installed packages, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
