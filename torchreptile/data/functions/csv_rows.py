"""Reading of tables: rows of csv files, checked; the first problem is reported with its file and line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from torchreptile.core.errors import DataError
from torchreptile.data.csv_files import read_csv, separator_hint


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        task: the task that it belongs to.
        values: column name -> value; all are finite.
    """

    task: str
    values: dict[str, float]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order of the file."""
        return tuple(self.values)


def read_rows(root: Path, task_column: str) -> list[Row]:
    """Read the rows of a folder of csv files, one per task, or of one csv file with a column for the task.

    Files are read in the order of their names; their first line names the columns, which must be the same in all files.

    Args:
        root: the folder or csv file.
        task_column: name of the column for the task; used only where ``root`` is a file.

    Raises:
        DataError: a value is not a finite number, or the files do not have the same columns.
    """
    if root.is_dir():
        files = sorted(file for file in root.iterdir() if file.suffix.lower() == ".csv" and file.name[0] != ".")
        if not files:
            raise DataError(f"--table {root} has no .csv files; put one per task there")
        found = [_read(file, "") for file in files]
        for file, rows in zip(files, found, strict=True):
            if sorted(rows[0].columns) != sorted(found[0][0].columns):
                raise DataError(
                    f"{file}: line 1 has the columns {', '.join(rows[0].columns)}, but {files[0].name} has "
                    f"{', '.join(found[0][0].columns)}; they must be the same in all files"
                )
        return [row for rows in found for row in rows]
    if root.suffix.lower() == ".csv" and root.is_file():
        return _read(root, task_column)
    raise DataError(f"--table {root} {'is neither a folder nor a .csv file' if root.exists() else 'does not exist'}")


def _read(file: Path, task_column: str) -> list[Row]:
    """Read the rows of one file, at least one; without a column for the task, its name is the task."""
    lines = read_csv(file)
    header = [name.strip() for name in lines[0][1]] if lines else []
    header = ["task" if name.lower() == "task" else name for name in header]
    _check_header(file, header, task_column)
    if len(lines) < 2:
        raise DataError(f"{file}: has no rows below its first line")
    rows = []
    for number, line in lines[1:]:
        if len(line) != len(header):
            raise DataError(f"{file}: line {number} has {len(line)} columns, but line 1 names {len(header)}")
        values = dict(zip(header, line, strict=True))
        task = values.pop(task_column).strip() if task_column else file.stem
        if not task:
            raise DataError(f"{file}: line {number} names no {task_column}")
        rows.append(Row(task, {name: _number(file, number, name, value) for name, value in values.items()}))
    return rows


def _check_header(file: Path, header: list[str], task_column: str) -> None:
    """Refuse a header without the columns that are needed."""
    found = f"{file}: line 1 has {', '.join(map(repr, header)) or 'nothing'}{separator_hint(header)}"
    if task_column and task_column not in header:
        raise DataError(f"{found}; one file for all tasks needs a column {task_column}, or give a folder of files")
    if not task_column and "task" in header:
        raise DataError(
            f"{found}; in a folder every file is one task: leave out the column task, or give a single file"
        )
    if "" in header or len(set(header)) < len(header):
        raise DataError(f"{found}; it must name every column, each once")
    if len(header) < (3 if task_column else 2):
        raise DataError(f"{found}; at least one input and one target are needed")


def _number(file: Path, line: int, column: str, text: str) -> float:
    """Return the value of a cell, which must be a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{file}: line {line} has {text.strip()!r} in column {column}; it must be a finite number")
    return value
