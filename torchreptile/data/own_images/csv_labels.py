"""Images listed in a csv file: one row per picture, with its file, its label and optionally its split."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from torchreptile.core.errors import DataError
from torchreptile.data.csv_files import read_csv, separator_hint
from torchreptile.data.own_images.class_folders import Catalogue, PictureFile, one_split_each, refuse, regular_file
from torchreptile.data.splits import SPLITS, Split

COLUMNS = ("file", "label", "split")


def scan_csv(root: Path) -> Catalogue:
    """List the pictures in the csv file ``root``; files are relative to its folder and must be inside it.

    The first line names the columns: ``file`` (or ``filename``), ``label`` and, to divide the classes, ``split``
    (train, val or test). Other columns are ignored. Backslashes in file names are understood as on Windows.

    Raises:
        DataError: the file cannot be read, or rows are wrong; all are named.
    """
    rows = read_csv(root)
    listing = _Listing(root, rows[0][1] if rows else [])
    for number, row in rows[1:]:
        listing.add(number, row)
    return listing.finish()


class _Listing:
    """A collection of rows by class, with their problems."""

    def __init__(self, root: Path, header: list[str]) -> None:
        names = ["file" if name.strip().lower() == "filename" else name.strip().lower() for name in header]
        if "file" not in names or "label" not in names:
            found = ", ".join(map(repr, header)) or "nothing"
            hint = separator_hint(header)
            raise DataError(f"{root}: its first line has {found}; it must name the columns file and label{hint}")
        if twice := [name for name, times in Counter(names).items() if name in COLUMNS and times > 1]:
            raise DataError(f"{root}: its first line names the column {twice[0]} twice; name it once")
        self.root, self.folder, self.width = root, root.parent.resolve(), len(names)
        self.columns = [names.index(name) if name in names else None for name in COLUMNS]
        self.classes: dict[str, list[PictureFile]] = defaultdict(list)
        self.splits: list[tuple[str, Split]] = []
        self.lines: dict[Path, int] = {}  # where a file was listed first
        self.problems: list[str] = []
        self.too_wide = 0  # rows with more values than columns

    def add(self, number: int, row: list[str]) -> None:
        """Add the row in line ``number``."""
        if len(row) > self.width and any(cell.strip() for cell in row[self.width :]):
            remedy = "; put a value that holds a comma in double quotes, without a space before them"
            self.problems.append(
                f"line {number} has {len(row)} columns, but line 1 names {self.width}{'' if self.too_wide else remedy}"
            )
            self.too_wide += 1
            return
        name, label, split = (
            row[column].strip() if column is not None and column < len(row) else "" for column in self.columns
        )
        split = split.lower()
        if "\\" in name and not (self.folder / name).exists():
            name = name.replace("\\", "/")
        if problem := self._check(name, label, split):
            self.problems.append(f"line {number}: {problem}")
            return
        path = (self.folder / name).parent.resolve() / Path(name).name  # one path per file, however it is written
        file = regular_file(path, name)
        if not isinstance(file, str) and path in self.lines:
            file = f"{name} is listed in line {self.lines[path]} already"
        if isinstance(file, str):
            self.problems.append(f"line {number}: {file}")
            return
        self.lines[path] = number
        self.classes[label].append(file)
        self.splits += [(label, known) for known in SPLITS if known == split]

    def _check(self, name: str, label: str, split: str) -> str:
        """Return what is wrong with a row; empty if nothing is."""
        if not name or not label:
            return f"{name or 'no file'} has {'no label' if not label else f'label {label}'}; a row needs both"
        if self.columns[2] is not None and split not in SPLITS:
            return f"split is {split!r} for {name}; it must be one of {', '.join(SPLITS)}"
        if "\0" in name or not (self.folder / name).parent.resolve().is_relative_to(self.folder):
            return f"{name!r} is outside {self.folder}; files must be in the csv's folder or below"
        return ""

    def finish(self) -> Catalogue:
        """Return the catalogue, or raise an error with all problems."""
        splits, problems = one_split_each(self.splits)
        self.problems += problems
        if not self.classes and not self.problems:
            raise DataError(f"{self.root}: lists no pictures")
        refuse(self.root, self.problems)
        ordered = {name: tuple(sorted(files, key=lambda file: file.name)) for name, files in self.classes.items()}
        return Catalogue(self.root, dict(sorted(ordered.items())), splits or None)
