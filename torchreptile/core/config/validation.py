"""Checks of settings: a bad one is refused with its name, its value and what would work."""

from __future__ import annotations

import math
from typing import Any, get_args, get_type_hints

from torchreptile.core.errors import ConfigError

LARGEST_SEED = 2**63 - 1  # the largest that torch.Generator accepts
MOST_STEPS = 1_000_000  # inner steps of a task; a file that asks for more would keep a processor busy for ever


def require(holds: bool, message: str) -> None:
    """Raise ConfigError with ``message`` unless ``holds``."""
    if not holds:
        raise ConfigError(message)


def _fits(value: Any, kind: Any) -> bool:
    """Return whether ``value`` is of the type: an int passes as a float, a bool only as a bool."""
    return type(value) is kind or (kind is float and type(value) is int)


def _choices(kind: Any) -> tuple[Any, ...]:
    """Return the values of a Literal, or of a union of Literals; none for other types."""
    return tuple(choice for part in get_args(kind) for choice in (get_args(part) or (part,)))


def check_types(settings: Any) -> None:
    """Refuse settings whose value is not of the field's type or not among its choices.

    Args:
        settings: a dataclass instance.

    Raises:
        ConfigError: a value does not fit.
    """
    for name, kind in get_type_hints(type(settings)).items():
        value, choices = getattr(settings, name), _choices(kind)
        if choices:
            require(value in choices, f"{name} is {value!r}; it must be one of {', '.join(choices)}")
        else:
            require(_fits(value, kind), f"{name} is {value!r}; it must be of type {kind.__name__}")
            require_countable(name, value)


def require_countable(name: str, value: Any) -> None:
    """Refuse a whole number that does not fit into 64 bits; Python's own have no limit, everything else has.

    >>> require_countable("way", 10**30)
    Traceback (most recent call last):
    ...
    torchreptile.core.errors.ConfigError: way is a number of 31 digits; it must be at most 9223372036854775807
    """
    if isinstance(value, int) and abs(value) > LARGEST_SEED:
        # Digits are counted without writing them: Python refuses to write more than 4,300.
        digits = int(math.log10(abs(value))) + 1
        raise ConfigError(f"{name} is a number of {digits} digits; it must be at most {LARGEST_SEED}")


def at_least(minimum: float, **values: float) -> None:
    """Refuse values that are below ``minimum`` or not finite.

    >>> at_least(1, way=0)
    Traceback (most recent call last):
    ...
    torchreptile.core.errors.ConfigError: way is 0; it must be at least 1
    """
    for name, value in values.items():
        require_countable(name, value)
        require(math.isfinite(value) and value >= minimum, f"{name} is {value}; it must be at least {minimum}")


def at_most(maximum: float, **values: float) -> None:
    """Refuse values that are above ``maximum``."""
    for name, value in values.items():
        require_countable(name, value)
        require(value <= maximum, f"{name} is {value}; it must be at most {maximum}")


def positive(**values: float) -> None:
    """Refuse values that are 0, negative or not finite."""
    for name, value in values.items():
        require_countable(name, value)
        require(math.isfinite(value) and value > 0, f"{name} is {value}; it must be greater than 0")
