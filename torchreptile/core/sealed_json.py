"""JSON that carries a checksum of its content, so that a changed digit is noticed, and its strict reader."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

from torchreptile.core.json_text import json_text

CHECKSUM = "checksum"
LARGEST = 2**64  # of whole numbers; seeds and bytes are below it


def parse_json(text: str) -> Any:
    """Return the content of JSON from a file.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has numbers that no file of this library holds: NaN,
            infinity, and whole numbers of more than 64 bits.

    Example:
        >>> parse_json('{"mean": 0.5}')
        {'mean': 0.5}
    """
    try:
        return json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _whole(digits: str) -> int:
    """Return a whole number of at most 64 bits."""
    number = int(digits) if len(digits) <= 20 else LARGEST + 1
    if abs(number) > LARGEST:
        raise ValueError(f"a number of {len(digits.lstrip('-'))} digits is none that belongs there")
    return number


def _finite(digits: str) -> float:
    """Return a finite number."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is not a finite number")
    return number


def require_numbers(values: dict[str, Any], low: float = 0.0, high: float = math.inf, whole: bool = False) -> None:
    """Refuse values by name that are not numbers, or are out of range; NaN, which is written as null, is in any range.

    Args:
        values: the values by name.
        low: the least.
        high: the largest.
        whole: whether they must be whole numbers; then NaN is refused too.

    Raises:
        ValueError: a value is not such a number.

    Example:
        >>> require_numbers({"mean": 0.5}, high=1)
        >>> require_numbers({"episodes": 2.5}, whole=True)
        Traceback (most recent call last):
            ...
        ValueError: episodes is 2.5, which cannot be
    """
    for name, value in values.items():
        known = type(value) is int or (type(value) is float and not whole)
        if not known or not (low <= value <= high or math.isnan(value)):
            raise ValueError(f"{name} is {str(value)[:50]}, which cannot be")


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content with its checksum, which :func:`unsealed` checks.

    Example:
        >>> sorted(sealed({"accuracy": 0.5}))
        ['accuracy', 'checksum']
    """
    return content | {CHECKSUM: _checksum(content)}


def unsealed(content: Any) -> dict[str, Any]:
    """Return parsed content without its checksum, once that is right.

    Content without a checksum, which earlier versions wrote, is returned as it is.

    Raises:
        ValueError: it is not an object, or its checksum is not that of its content.

    Example:
        >>> unsealed(sealed({"accuracy": 0.5}))
        {'accuracy': 0.5}
        >>> unsealed(sealed({"accuracy": 0.5}) | {"accuracy": 0.6})
        Traceback (most recent call last):
            ...
        ValueError: its content is not what was written: its checksum differs
    """
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    known = {name: value for name, value in content.items() if name != CHECKSUM}
    if CHECKSUM in content and content[CHECKSUM] != _checksum(known):
        raise ValueError("its content is not what was written: its checksum differs")
    return known


def _checksum(content: dict[str, Any]) -> str:
    """Return the SHA-256 of the content in one form that does not depend on spaces and the order of names."""
    read_back = json.loads(json_text(content))  # tuples are lists there, names are text, and NaN is null
    return hashlib.sha256(json.dumps(read_back, sort_keys=True).encode()).hexdigest()
