"""Listing of class folders, with or without a division into train, val and test; nothing is decoded here.

Everything in a class folder must be a picture, so that nothing is left out unnoticed; all problems are reported at
once. Hidden files and others that operating systems leave everywhere are skipped and counted.
"""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchreptile.core.errors import DataError
from torchreptile.data.own_images.decode import SUFFIXES
from torchreptile.data.splits import SPLITS, Split

NAMED = 100  # problems named in a message; the rest are counted
# Files and folders that Windows, macOS, archives and network drives leave, in small letters.
NOISE = (
    "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "__macosx", "icon\r",
    "lost+found", "@eadir",
)  # fmt: skip
MISNAMED = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class PictureFile:
    """One picture file.

    Attributes:
        path: its path.
        name: its path relative to the root, printable.
        size: bytes.
        changed: modification time, nanoseconds.
    """

    path: Path
    name: str
    size: int
    changed: int


@dataclass(frozen=True)
class Catalogue:
    """The classes of a data set with their files.

    Attributes:
        root: the folder or csv file.
        classes: name -> files, both in the order of their names.
        splits: class name -> split; None where the data are not divided.
        skipped: names of files that operating systems left, which were skipped.
    """

    root: Path
    classes: dict[str, tuple[PictureFile, ...]]
    splits: dict[str, Split] | None
    skipped: tuple[str, ...] = ()


def scan_folders(root: Path) -> Catalogue:
    """List the class folders in ``root``, or in ``root``/train, ``root``/val and ``root``/test, in small or capital
    letters.

    Raises:
        DataError: the folder has problems; all are named.
    """
    scan = _Scan(root)
    folders = scan.folders(root, "the data folder")
    found = [(split, path) for split in SPLITS for name, path in folders.items() if name.lower() == split]
    if not any(scan.subfolders(path) for _, path in found):  # none holds folders: a class may well be called "train"
        return scan.finish([(None, folders)])
    divided, parts = [path.name for _, path in found], [path for _, path in found]
    for path in sorted(set(folders.values()) - set(parts)):
        right = MISNAMED.get(path.name.lower())
        hint = f"rename it to {right}" if right else f"put it into {' or '.join(divided)}"
        scan.wrong(path, f"is a folder next to {' and '.join(divided)}; {hint}")
    for split in SPLITS:
        if len(same := [path.name for part, path in found if part == split]) > 1:
            scan.wrong(folders[same[1]], f"and {same[0]} are both the folder {split}; join them")
    return scan.finish([(split, scan.folders(path, "a split")) for split, path in found])


def scan_pictures(root: Path) -> dict[str, tuple[PictureFile, ...]]:
    """List pictures to label: those in a folder and in its subfolders, or a single file.

    Returns:
        Name of the subfolder -> pictures; the empty name for those in ``root`` itself.

    Raises:
        DataError: there are no pictures, or the folder has problems; all are named.
    """
    if not root.is_dir():
        found = regular_file(root, str(root))
        if isinstance(found, str):
            raise DataError(found)
        return {"": (found,)}
    scan = _Scan(root)
    folders = {path.name: path for path in scan.subfolders(root)}
    groups = {"": scan.files(path for path in scan.entries(root) if path not in folders.values())}
    groups |= {name: scan.pictures(folder) for name, folder in folders.items()}
    refuse(root, scan.problems)
    if not any(groups.values()):
        raise DataError(f"{root}: there are no pictures in it")
    return groups


def refuse(root: Path, problems: list[str]) -> None:
    """Raise one error that names the ``problems``, if there are any.

    Raises:
        DataError: there are problems.
    """
    if problems:
        more = f"; and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
        count = f"{len(problems):,} problem{'s' * (len(problems) > 1)}"
        raise DataError(f"{root}: {count}: {'; '.join(problems[:NAMED])}{more}")


def one_split_each(found: Iterable[tuple[str, Split]]) -> tuple[dict[str, Split], list[str]]:
    """Assign each class to its split.

    Args:
        found: (class name, split) pairs.

    Returns:
        Class name -> split, and a problem for every class in more than one: it would be trained on and tested with.
    """
    where: dict[str, list[Split]] = defaultdict(list)
    for name, split in found:
        if split not in where[name]:
            where[name].append(split)
    problems = [
        f"class {name} is in {' and '.join(splits)}; a class must be in one split only"
        for name, splits in where.items()
        if len(splits) > 1
    ]
    return {name: splits[0] for name, splits in where.items()}, problems


def regular_file(path: Path, name: str) -> PictureFile | str:
    """Return a picture file, or the problem with it; links are followed."""
    try:
        path.name.encode()  # ``name`` would not do: it is always printable
        found = path.stat()
    except UnicodeEncodeError:
        return f"{name.encode(errors='replace').decode()}: its name is not UTF-8; rename it"
    except OSError as error:
        return f"{name}: {'a broken link' if path.is_symlink() else error.strerror}"
    if stat.S_ISDIR(found.st_mode):
        return f"{name}: {'a link to a folder' if path.is_symlink() else 'a folder'}, not a picture"
    if not stat.S_ISREG(found.st_mode):
        return f"{name}: neither a file nor a folder"
    if path.suffix.lower() not in SUFFIXES:
        return f"{name}: not a picture by its name (those end in {', '.join(SUFFIXES)})"
    return PictureFile(path, name, found.st_size, found.st_mtime_ns)


class _Scan:
    """A walk through folders that collects their problems."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []
        self.skipped: list[str] = []

    def wrong(self, path: Path, what: str) -> None:
        """Record a problem."""
        self.problems.append(f"{self.name(path)} {what}")

    def name(self, path: Path) -> str:
        """Return the path relative to the root, printable."""
        return os.path.relpath(path, self.root).encode(errors="replace").decode()

    def entries(self, folder: Path) -> list[Path]:
        """Return the content of ``folder`` without what operating systems leave, in the order of names."""
        try:
            found = sorted(folder.iterdir())
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
        hidden = [path for path in found if path.name.startswith(".") or path.name.lower() in NOISE]
        self.skipped += [name for path in hidden if (name := self.name(path)) not in self.skipped]
        return [path for path in found if path not in hidden]

    def subfolders(self, folder: Path) -> list[Path]:
        """Return the folders in ``folder``; other files are ignored."""
        return [path for path in self.entries(folder) if path.is_dir()]

    def folders(self, folder: Path, role: str) -> dict[str, Path]:
        """Return the folders in ``folder`` by name; pictures outside of them and links to folders are problems."""
        found = {}
        for path in self.entries(folder):
            if path.is_dir() and path.is_symlink():
                self.wrong(path, "is a link to a folder; only links to files are followed")
            elif path.is_dir() and self.name(path) != os.path.relpath(path, self.root):
                self.wrong(path, "has a name that is not UTF-8; rename it")
            elif path.is_dir():
                found[path.name] = path
            elif path.suffix.lower() in SUFFIXES:
                self.wrong(path, f"is a picture in {role} itself; put it into the folder of its class")
        return found

    def finish(self, divided: Sequence[tuple[Split | None, dict[str, Path]]]) -> Catalogue:
        """List the class folders of every split (None: not divided), or raise an error with all problems."""
        classes = {name: self.pictures(folder) for _, folders in divided for name, folder in folders.items()}
        splits, problems = one_split_each((name, split) for split, folders in divided if split for name in folders)
        self.problems += problems
        if not classes and not self.problems:
            raise DataError(f"{self.root}: no class folders; put the pictures of each class into a separate folder")
        refuse(self.root, self.problems)
        return Catalogue(self.root, dict(sorted(classes.items())), splits or None, tuple(self.skipped))

    def pictures(self, folder: Path) -> tuple[PictureFile, ...]:
        """Return the pictures in a class folder; an empty one is a problem."""
        entries = self.entries(folder)
        if not entries:
            self.wrong(folder, "is a class without pictures; remove the folder or fill it")
        return self.files(entries)

    def files(self, paths: Iterable[Path]) -> tuple[PictureFile, ...]:
        """Return the pictures among ``paths``; every other file is a problem."""
        found = [regular_file(path, self.name(path)) for path in paths]
        self.problems += [problem for problem in found if isinstance(problem, str)]
        return tuple(file for file in found if isinstance(file, PictureFile))
