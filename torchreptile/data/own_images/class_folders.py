"""What own images are there: class folders, divided into train, val and test or not. Nothing is decoded here.

Everything in a class folder must be a picture, so that nothing is left out unnoticed; all that is wrong is said at
once. Hidden files, which systems leave everywhere, are passed over and counted.
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

NAMED = 100  # problems named one by one in a message; of more, their number is given
NOT_HIDDEN_BUT_NOISE = ("Thumbs.db", "desktop.ini")  # what Windows leaves
MISNAMED = {"valid": "val", "validation": "val", "dev": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class PictureFile:
    """One file.

    Attributes:
        path: where it is.
        name: relative to the root, for people.
        size: bytes.
        changed: when, in nanoseconds.
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
        splits: class name -> where it belongs; None where the data do not say.
        skipped: names of hidden files that were passed over.
    """

    root: Path
    classes: dict[str, tuple[PictureFile, ...]]
    splits: dict[str, Split] | None
    skipped: tuple[str, ...] = ()


def scan_folders(root: Path) -> Catalogue:
    """The class folders in ``root``, or in ``root``/train, ``root``/val and ``root``/test.

    Raises:
        DataError: naming everything there that does not fit.
    """
    scan = _Scan(root)
    folders = scan.folders(root, "the data folder")
    divided = {split: scan.subfolders(folders[split]) for split in SPLITS if split in folders}
    if not any(divided.values()):  # none of them holds folders: a class may well be called "train"
        return scan.finish([(None, folders)])
    for name in sorted(set(folders) - set(divided)):
        hint = f"rename it to {MISNAMED[name]}" if name in MISNAMED else f"put it into {' or '.join(divided)}"
        scan.wrong(folders[name], f"is a folder beside {' and '.join(divided)}; {hint}")
    return scan.finish([(split, scan.folders(folders[split], "a split")) for split in divided])


def scan_pictures(root: Path) -> dict[str, tuple[PictureFile, ...]]:
    """The pictures in ``root`` itself, under the empty name, and in its folders, under theirs; or ``root``, a file.

    Raises:
        DataError: naming everything there that does not fit, or there is nothing.
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
    """Raise one error that names all ``problems``, if there are any.

    Raises:
        DataError: there are.
    """
    if problems:
        more = f"; and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
        raise DataError(f"{root}: {len(problems):,} wrong: {'; '.join(problems[:NAMED])}{more}")


def one_split_each(found: Iterable[tuple[str, Split]]) -> tuple[dict[str, Split], list[str]]:
    """Class name -> split, and a message for every class in more than one: it would be trained on and tested with."""
    where: dict[str, list[Split]] = defaultdict(list)
    for name, split in found:
        if split not in where[name]:
            where[name].append(split)
    problems = [
        f"class {name} is in {' and '.join(splits)}; a class belongs to one of them, or the test would be no test"
        for name, splits in where.items()
        if len(splits) > 1
    ]
    return {name: splits[0] for name, splits in where.items()}, problems


def regular_file(path: Path, name: str) -> PictureFile | str:
    """The file, or what is wrong with it; a link counts as what it leads to."""
    try:
        path.name.encode()  # not the name for people, which is printable in any case
        found = path.stat()
    except UnicodeEncodeError:
        return f"{name.encode(errors='replace').decode()}: its name is not UTF-8; rename it"
    except OSError as error:
        return f"{name}: {'a link to nothing' if path.is_symlink() else error.strerror}"
    if stat.S_ISDIR(found.st_mode):
        return f"{name}: {'a link to a folder' if path.is_symlink() else 'a folder'}, not a picture"
    if not stat.S_ISREG(found.st_mode):
        return f"{name}: neither a file nor a folder"
    if path.suffix.lower() not in SUFFIXES:
        return f"{name}: not a picture by its name (those end in {', '.join(SUFFIXES)})"
    return PictureFile(path, name, found.st_size, found.st_mtime_ns)


class _Scan:
    """A walk through folders that collects what is wrong."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[str] = []
        self.skipped: list[str] = []

    def wrong(self, path: Path, what: str) -> None:
        """Note a problem."""
        self.problems.append(f"{self.name(path)} {what}")

    def name(self, path: Path) -> str:
        """Relative to the root, printable."""
        return os.path.relpath(path, self.root).encode(errors="replace").decode()

    def entries(self, folder: Path) -> list[Path]:
        """What is in ``folder``, but for hidden files, in the order of names."""
        try:
            found = sorted(folder.iterdir())
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
        hidden = [path for path in found if path.name.startswith(".") or path.name in NOT_HIDDEN_BUT_NOISE]
        self.skipped += [name for path in hidden if (name := self.name(path)) not in self.skipped]
        return [path for path in found if path not in hidden]

    def subfolders(self, folder: Path) -> list[Path]:
        """The folders in ``folder``, without complaints."""
        return [path for path in self.entries(folder) if path.is_dir()]

    def folders(self, folder: Path, role: str) -> dict[str, Path]:
        """The folders in ``folder`` by name; loose pictures and links to folders are wrong, other files are not."""
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
        """Read the class folders of every split (None: of all classes) and refuse whatever was wrong."""
        classes = {name: self.pictures(folder) for _, folders in divided for name, folder in folders.items()}
        splits, problems = one_split_each((name, split) for split, folders in divided if split for name in folders)
        self.problems += problems
        if not classes and not self.problems:
            raise DataError(f"{self.root}: no class folders; put the pictures of every class into a folder of its own")
        refuse(self.root, self.problems)
        return Catalogue(self.root, dict(sorted(classes.items())), splits or None, tuple(self.skipped))

    def pictures(self, folder: Path) -> tuple[PictureFile, ...]:
        """The files of a class."""
        entries = self.entries(folder)
        if not entries:
            self.wrong(folder, "is a class without pictures; remove the folder or fill it")
        return self.files(entries)

    def files(self, paths: Iterable[Path]) -> tuple[PictureFile, ...]:
        """Those of them that are pictures; what the others are is wrong."""
        found = [regular_file(path, self.name(path)) for path in paths]
        self.problems += [problem for problem in found if isinstance(problem, str)]
        return tuple(file for file in found if isinstance(file, PictureFile))
