"""JSON text of results: NaN and infinity, which JSON does not have, are written as null."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(content: Any, indent: int | None = None, ascii_only: bool = True) -> str:
    """Return ``content`` as JSON that every reader of JSON accepts; numbers that are not finite become null.

    Args:
        content: what ``json.dumps`` takes.
        indent: spaces per level; None for a single line.
        ascii_only: escape all other characters.

    Example:
        >>> json_text({"mean": float("nan"), "episodes": 50})
        '{"mean": null, "episodes": 50}'
    """
    try:
        return json.dumps(content, indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    except ValueError:  # such a number, or content that refers to itself, which fails again below
        return json.dumps(_finite(content), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def number_from(value: float | None) -> float:
    """Return a number that :func:`json_text` wrote: NaN for null.

    Example:
        >>> number_from(None)
        nan
    """
    return math.nan if value is None else value


def _finite(content: Any) -> Any:
    """Return the content with None in place of numbers that are not finite."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
