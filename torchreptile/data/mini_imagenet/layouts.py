"""Detection of the layout of mini-ImageNet in a folder; :mod:`torchreptile.data.mini_imagenet.dataset` lists them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from torchreptile.core.errors import DataError
from torchreptile.data.mini_imagenet import tar_stream
from torchreptile.data.mini_imagenet.pickles import Pickle
from torchreptile.data.mini_imagenet.sources import Archive, Files, Source, is_litter
from torchreptile.data.own_images.decode import SUFFIXES
from torchreptile.data.splits import SPLITS, MissingSplit, Split

IMAGENET_FOLDERS = ("train", "ILSVRC2012/train", "ILSVRC/Data/CLS-LOC/train")
PICKLES = {
    "train": ("mini-imagenet-cache-train.pkl", "miniImageNet_category_split_train_phase_train.pickle"),
    "val": ("mini-imagenet-cache-val.pkl", "miniImageNet_category_split_val.pickle"),
    "test": ("mini-imagenet-cache-test.pkl", "miniImageNet_category_split_test.pickle"),
}
# A class such as n01532829, and a position in that class, from 1.
LISTED = re.compile(r"(n\d{8})(\d{8})\.\w+")

Listed = dict[str, list[str]]


def find(folder: Path, split: Split, images: int, side: int) -> Source | MissingSplit:
    """Find one split in the first layout that exists, or return what is missing.

    Args:
        folder: folder of the data set.
        split: name of the split.
        images: images of every class; a class folder with more of them is ILSVRC's.
        side: height and width of the pictures in a pickle, pixels.

    Raises:
        DataError: a list cannot be read.
    """
    list_path = folder / f"{split}.csv"
    listed = read_list(list_path) if list_path.is_file() else None
    archive = next((p for s in tar_stream.SUFFIXES if (p := folder / f"images-{split}{s}").is_file()), None)
    if archive and listed:
        return Archive(archive, list_path, listed)
    pictures = folder / "images"
    if listed and pictures.is_dir():
        files = {name: [pictures / file for file in members] for name, members in listed.items()}
        return Files(f"{pictures} with {list_path.name}", files, _unlisted(folder) if split == "train" else ())
    imagenet = _imagenet(folder, listed, images) if listed else None
    if (folder / split).is_dir() and not imagenet:
        return _class_folders(folder / split)
    for name in PICKLES[split]:
        if (folder / name).is_file():
            return Pickle(folder / name, side)
    if listed and imagenet:
        return _from_imagenet(imagenet, list_path, listed)
    if listed:
        return MissingSplit(
            f"{folder} has no {split} pictures: {list_path.name} is there, but neither images-{split}.tar.xz (.tar, "
            f".tar.gz) nor images/ nor {split}/"
        )
    if archive or pictures.is_dir():
        held = archive.name if archive else "images/"
        return MissingSplit(f"{folder} has no {split}.csv, which must say what in {held} belongs to {split}")
    return MissingSplit(f"{folder} has no {split} pictures")


def read_list(path: Path) -> Listed:
    """Read a csv list with the columns filename and label.

    Returns:
        Class -> file names in order; classes are sorted.

    Raises:
        DataError: it is not such a list; every wrong line is counted, and the first are named.
    """
    listed: Listed = {}
    wrong: list[str] = []
    seen: set[str] = set()
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            if not {"filename", "label"} <= set(reader.fieldnames or ()):
                raise DataError(f"{path}: its first line must name the columns filename and label")
            for line in reader:
                name, label = line["filename"].strip(), line["label"].strip()
                if not name or not label or name in (".", "..") or set(name) & set("/\\\0"):
                    wrong.append(f"line {reader.line_num} has file name {name!r} and label {label!r}")
                elif name in seen:
                    wrong.append(f"line {reader.line_num} lists {name} again")
                else:
                    listed.setdefault(label, []).append(name)
                    seen.add(name)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a csv list ({error})") from error
    if wrong or not listed:
        count = f"{len(wrong)} {'line is' if len(wrong) == 1 else 'lines are'} wrong"
        raise DataError(f"{path}: {count} ({'; '.join(wrong[:3])})" if wrong else f"{path}: empty")
    return dict(sorted(listed.items()))


def _unlisted(folder: Path) -> tuple[str, ...]:
    """Return a problem for every file in ``images/`` that no list names; none while a list is missing."""
    lists = [folder / f"{split}.csv" for split in SPLITS]
    if not all(path.is_file() for path in lists):
        return ()
    known = {name for path in lists for names in read_list(path).values() for name in names}
    names = _names(folder / "images")
    return tuple(f"{folder / 'images' / name}: in none of the lists" for name in names if name not in known)


def _names(folder: Path) -> Iterable[str]:
    """Return the names in a folder, sorted, without files that the operating system left there."""
    return sorted(path.name for path in folder.iterdir() if not is_litter(path.name))


def _class_folders(folder: Path) -> Files:
    """Collect the pictures of train/CLASS/, the class folders of one split."""
    files: dict[str, list[Path]] = {}
    problems: list[str] = []
    for name in _names(folder):
        if not (folder / name).is_dir():
            problems.append(f"{folder / name}: not a class folder")
            continue
        paths = [folder / name / file for file in _names(folder / name)]
        files[name] = [path for path in paths if path.suffix.lower() in SUFFIXES]
        problems += [f"{path}: not a picture" for path in paths if path.suffix.lower() not in SUFFIXES]
    return Files(str(folder), files, tuple(problems))


def _imagenet(folder: Path, listed: Listed, images: int) -> Path | None:
    """Return ILSVRC's training folder, if it exists: its classes have more pictures than mini-ImageNet's."""
    first = next(iter(listed))
    for name in IMAGENET_FOLDERS:
        if (folder / name / first).is_dir() and sum(1 for _ in _names(folder / name / first)) > images:
            return folder / name
    return None


def _from_imagenet(imagenet: Path, list_path: Path, listed: Listed) -> Files:
    """Select the listed pictures: positions, from 1, among the files of each class ordered by number."""
    files: dict[str, list[Path]] = {}
    wrong: list[str] = []
    for label, names in listed.items():
        numbered = _numbered(imagenet / label)
        files[label] = []
        for name in names:
            match = LISTED.fullmatch(name)
            if not match or match[1] != label:
                wrong.append(f"{list_path}: {name} is not {label} and a number of eight digits")
            elif not 1 <= int(match[2]) <= len(numbered):
                wrong.append(f"{imagenet / label}: has {len(numbered)} pictures, but {name} is number {int(match[2])}")
            else:
                files[label].append(numbered[int(match[2]) - 1])
    return Files(f"{imagenet} with {list_path.name}", files, tuple(wrong))


def _numbered(folder: Path) -> list[Path]:
    """Return the pictures of a class, such as n01532829_7.JPEG, ordered by their number."""
    if not folder.is_dir():
        return []
    numbers = {
        name: re.fullmatch(rf"{re.escape(folder.name)}_(\d+)\.jpe?g", name, re.IGNORECASE) for name in _names(folder)
    }
    order = sorted((int(match[1]), name) for name, match in numbers.items() if match)
    return [folder / name for _, name in order]
