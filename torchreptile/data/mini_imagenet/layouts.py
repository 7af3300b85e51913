"""Which of its forms mini-ImageNet has in a folder: see :mod:`torchreptile.data.mini_imagenet.dataset`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

from torchreptile.core.errors import DataError
from torchreptile.data.mini_imagenet import tar_stream as archives
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
# n01532829 and a place in that class, from 1.
LISTED = re.compile(r"(n\d{8})(\d{8})\.\w+")

Listed = dict[str, list[str]]


def find(folder: Path, split: Split, images: int, side: int) -> Source | MissingSplit:
    """One split in the first form that is there, or what would be needed for one.

    Args:
        folder: of the data set.
        split: which one.
        images: of every class; a class folder with more of them is ILSVRC's.
        side: of the pictures in a pickle, pixels.

    Raises:
        DataError: a list that cannot be read.
    """
    list_path = folder / f"{split}.csv"
    listed = read_list(list_path) if list_path.is_file() else None
    archive = next((p for s in archives.SUFFIXES if (p := folder / f"images-{split}{s}").is_file()), None)
    if archive and listed:
        return Archive(archive, list_path, listed)
    pictures = folder / "images"
    if listed and pictures.is_dir():
        files = {name: [pictures / file for file in its] for name, its in listed.items()}
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
    """A csv list with the columns filename and label: class -> file names in order, classes sorted.

    Raises:
        DataError: it is no such list; every wrong line is counted, the first are named.
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
        raise DataError(f"{path}: {len(wrong)} lines are wrong ({'; '.join(wrong[:3])})" if wrong else f"{path}: empty")
    return dict(sorted(listed.items()))


def _unlisted(folder: Path) -> tuple[str, ...]:
    """Files in ``images/`` that no list names; nothing can be said while a list is absent."""
    lists = [folder / f"{split}.csv" for split in SPLITS]
    if not all(path.is_file() for path in lists):
        return ()
    known = {name for path in lists for names in read_list(path).values() for name in names}
    names = _names(folder / "images")
    return tuple(f"{folder / 'images' / name}: in none of the lists" for name in names if name not in known)


def _names(folder: Path) -> Iterable[str]:
    """What is in a folder, sorted, without what the system leaves there."""
    return sorted(path.name for path in folder.iterdir() if not is_litter(path.name))


def _class_folders(folder: Path) -> Files:
    """train/CLASS/*.jpg: the class folders of one split."""
    files: dict[str, list[Path]] = {}
    foreign: list[str] = []
    for name in _names(folder):
        if not (folder / name).is_dir():
            foreign.append(f"{folder / name}: not a class folder")
            continue
        paths = [folder / name / file for file in _names(folder / name)]
        files[name] = [path for path in paths if path.suffix.lower() in SUFFIXES]
        foreign += [f"{path}: not a picture" for path in paths if path.suffix.lower() not in SUFFIXES]
    return Files(str(folder), files, tuple(foreign))


def _imagenet(folder: Path, listed: Listed, images: int) -> Path | None:
    """ILSVRC's training folder, if it is there: its classes have more pictures than mini-ImageNet's."""
    first = next(iter(listed))
    for name in IMAGENET_FOLDERS:
        if (folder / name / first).is_dir() and sum(1 for _ in _names(folder / name / first)) > images:
            return folder / name
    return None


def _from_imagenet(imagenet: Path, list_path: Path, listed: Listed) -> Files:
    """The listed pictures: the class's files ordered by number, counted from 1."""
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
    """The pictures n01532829_7.JPEG of a class, ordered by their number."""
    if not folder.is_dir():
        return []
    numbers = {
        name: re.fullmatch(rf"{re.escape(folder.name)}_(\d+)\.jpe?g", name, re.IGNORECASE) for name in _names(folder)
    }
    order = sorted((int(match[1]), name) for name, match in numbers.items() if match)
    return [folder / name for _, name in order]
