"""CSV text: cells that a spreadsheet shows as they are, and never computes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # with which a spreadsheet begins a formula


def csv_cell(value: Any) -> Any:
    """Return what is written for a value: a quote before text that a spreadsheet would take for a formula.

    Spreadsheets hide the quote; other readers see it. Numbers are left alone, and numbers that are not finite, like
    None, are empty cells.

    Example:
        >>> csv_cell("=1+1"), csv_cell("cat"), csv_cell(-0.5), csv_cell(float("nan"))
        ("'=1+1", 'cat', -0.5, None)
    """
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_STARTS) else value
    return None if isinstance(value, float) and value - value != 0 else value


def write_rows(file: TextIO, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows of cells, separated by commas; open the file with ``newline=""``."""
    for row in rows:
        line = io.StringIO()
        csv.writer(line).writerow([csv_cell(value) for value in row])  # ends in \r\n, so that it quotes both in cells
        file.write(line.getvalue().removesuffix("\r\n") + "\n")
