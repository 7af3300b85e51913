"""Reading of the user's csv files: their rows with line numbers, and the separator where it is not a comma."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from torchreptile.core.errors import DataError

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def read_csv(path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows of a csv file that are not empty, each with the number of the line that it ends in.

    Raises:
        DataError: the file cannot be read, or is not a csv file in UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.reader(opened, strict=True)
            return [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a csv file in UTF-8 ({error})") from error


def separator_hint(header: Sequence[str]) -> str:
    """Return what to say of a first line that another separator divides; empty where none does.

    Args:
        header: the first line, divided at commas.

    Example:
        >>> separator_hint(["file;label"])
        '; its columns are separated by semicolons: separate them by commas'
        >>> separator_hint(["file", "label"])
        ''
    """
    found = [name for mark, name in SEPARATORS.items() if any(mark in column for column in header)]
    return f"; its columns are separated by {found[0]}: separate them by commas" if found else ""
