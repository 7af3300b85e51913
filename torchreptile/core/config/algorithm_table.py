"""All algorithms by name: the built-in ones, those of installed packages, and those registered at run time."""

from __future__ import annotations

import dataclasses
import difflib
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from torchreptile.core.config.algorithm import AlgorithmRow, AlgorithmSettings
from torchreptile.core.errors import ConfigError
from torchreptile.core.user_code import described

# In the order of tables. Each row is in a module that needs no torch.
BUILT_IN = {
    name: f"torchreptile.algorithms.rows.{module}"
    for name, module in {
        "reptile": "reptile",
        "foml": "foml",
        "maml": "maml",
        "fomaml": "fomaml",
        "anil": "anil",
        "meta-sgd": "meta_sgd",
        "matching": "matching_networks",
        "protonet": "prototypical_networks",
        "pretrained": "pretrained",
        "scratch": "scratch",
        "mann": "mann",
        "meta-lstm": "meta_lstm",
    }.items()
}
ENTRY_POINTS = "torchreptile.algorithms"
_registered: dict[str, AlgorithmRow] = {}


def algorithm_names() -> list[str]:
    """Return the names of all algorithms: built in, installed, registered.

    Example:
        >>> algorithm_names()[:3]
        ['reptile', 'foml', 'maml']
    """
    return list(dict.fromkeys([*BUILT_IN, *_installed(), *_registered]))


def algorithm_row(name: str) -> AlgorithmRow:
    """Return the row of the algorithm called ``name``.

    Raises:
        ConfigError: there is no such algorithm.

    Example:
        >>> algorithm_row("maml").title
        'MAML'
    """
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        row: AlgorithmRow = import_module(BUILT_IN[name]).ROW
        return row
    if name in _installed():
        return _loaded(name)
    close = difflib.get_close_matches(name, algorithm_names(), 1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    names = ", ".join(algorithm_names())
    raise ConfigError(f"algorithm is {name}; it must be one of {names}, or FILE.py:CLASS of your own{hint}")


def all_rows() -> list[AlgorithmRow]:
    """Return the rows of all algorithms, without those of installed packages that cannot be imported."""
    rows = []
    for name in algorithm_names():
        with suppress(ConfigError):  # reported when it is requested by name
            rows.append(algorithm_row(name))
    return rows


def owner_of(setting: str) -> str:
    """Return the algorithm that has ``setting`` for itself, or an empty string.

    Example:
        >>> owner_of("mann_slots")
        'mann'
    """
    common = {field.name for field in dataclasses.fields(AlgorithmSettings)}
    for row in all_rows():
        if setting in {field.name for field in dataclasses.fields(row.settings)} - common:
            return row.name
    return ""


def register_algorithm(row: AlgorithmRow) -> None:
    """Make an algorithm known to this process under its row's name.

    Raises:
        ConfigError: the name belongs to another algorithm.
    """
    if row.name in BUILT_IN or row.name in _installed():
        raise ConfigError(f"the name {row.name} belongs to another algorithm; give the row another name")
    _registered[row.name] = row


@cache
def _installed() -> dict[str, EntryPoint]:
    """Algorithms that installed packages register, and where each row is, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS) if point.name not in BUILT_IN}


@cache
def _loaded(name: str) -> AlgorithmRow:
    """Return the row that an installed package registers as ``name``."""
    point = _installed()[name]
    try:
        found = point.load()
    except Exception as error:  # an import may raise anything
        raise ConfigError(f"algorithm {name}: its package cannot be imported ({described(error)})") from error
    row = getattr(found, "row", found)  # an algorithm class may be registered as well as its row
    if not isinstance(row, AlgorithmRow):
        raise ConfigError(f"algorithm {name}: {point.value} is neither an AlgorithmRow nor has one as row")
    if row.name != name:  # settings name the algorithm by its row, under which nothing would be found
        raise ConfigError(
            f"algorithm {name}: {point.value} has a row named {row.name}; its package must register it as {row.name}"
        )
    return row
