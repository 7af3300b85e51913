"""Folders of pictures in, labelled predictions out: the work of ``reptile adapt``."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchreptile.core.errors import DataError
from torchreptile.data.own_images.class_folders import PictureFile, scan_folders, scan_pictures
from torchreptile.inference.classifier import FewShotClassifier


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures and what a classifier says of them.

    Attributes:
        classes: (K,) names.
        files: N pictures.
        images: (N, C, H, W) uint8, what the network sees of them.
        truth: the class whose folder a picture lies in; None for all where folders do not have the classes' names.
        probabilities: (N, K) how sure the classifier is of each class.
        strangers: folders that have no class's name, where others have.
    """

    classes: tuple[str, ...]
    files: tuple[PictureFile, ...]
    images: Tensor
    truth: tuple[str, ...] | None
    probabilities: NDArray[np.float32]
    strangers: tuple[str, ...] = ()

    @property
    def predicted(self) -> list[str]:
        """(N,) the likeliest class of each."""
        return [self.classes[place] for place in self.probabilities.argmax(1)]

    @property
    def confidence(self) -> list[float]:
        """(N,) how sure the classifier is of that, from 0 to 1."""
        return [float(value) for value in self.probabilities.max(1)]

    @property
    def right(self) -> int | None:
        """How many are right, where the truth is known."""
        if self.truth is None:
            return None
        return sum(said == true for said, true in zip(self.predicted, self.truth, strict=True))

    def to_csv(self) -> str:
        """A line per picture: its name, the answer, how sure it is, the truth if known, and each class's share."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        known = ["true"] if self.truth is not None else []
        writer.writerow(["file", "predicted", "confidence", *known, *(f"p({name})" for name in self.classes)])
        for number, (picture, said, sure) in enumerate(zip(self.files, self.predicted, self.confidence, strict=True)):
            true = [self.truth[number]] if self.truth is not None else []
            shares = [f"{share:.6f}" for share in self.probabilities[number]]
            writer.writerow([picture.name, said, f"{sure:.6f}", *true, *shares])
        return file.getvalue()

    def to_json(self) -> str:
        """The same as indented JSON."""
        pictures = []
        for number, (picture, said, sure) in enumerate(zip(self.files, self.predicted, self.confidence, strict=True)):
            shares = {
                name: round(float(p), 6) for name, p in zip(self.classes, self.probabilities[number], strict=True)
            }
            one = {"file": picture.name, "predicted": said, "confidence": round(sure, 6), "probabilities": shares}
            pictures.append(one | ({"true": self.truth[number]} if self.truth is not None else {}))
        content = {"classes": self.classes, "right": self.right, "of": len(self.files), "pictures": pictures}
        return json.dumps(content, indent=2, ensure_ascii=False)


def fit_folder(classifier: FewShotClassifier, support: Path) -> dict[str, int]:
    """Fit to a folder of class folders.

    Returns:
        How many pictures each class has.

    Raises:
        DataError: the folder holds no classes, or something else; everything wrong is named.
    """
    if not support.is_dir():
        raise DataError(f"{support}: {'is no folder' if support.exists() else 'there is no such folder'}")
    found = scan_folders(support)
    if found.splits is not None:
        splits = " and ".join(sorted(set(found.splits.values())))
        raise DataError(f"{support} is divided into {splits}; name the one whose classes are meant")
    pairs = [(picture.path, name) for name, pictures in found.classes.items() for picture in pictures]
    classifier.fit([path for path, _ in pairs], [name for _, name in pairs])
    return {name: len(pictures) for name, pictures in found.classes.items()}


def label_pictures(classifier: FewShotClassifier, query: Path) -> Labelled:
    """Label a picture, or those in a folder and in its folders.

    Where every folder has a class's name, and no picture lies outside of them, those names are the truth.

    Raises:
        DataError: there are none, or something that is none; everything wrong is named.
    """
    groups = scan_pictures(query)
    classes = tuple(str(name) for name in classifier.classes_)
    pairs = [(picture, name) for name, pictures in groups.items() for picture in pictures]
    files = tuple(picture for picture, _ in pairs)
    images = classifier.prepared([picture.path for picture in files])
    probabilities = classifier.predict_proba(images)
    truth = tuple(name for _, name in pairs)
    if set(truth) <= set(classes):
        return Labelled(classes, files, images, truth, probabilities)
    some = bool(set(truth) & set(classes))
    others = sorted({name or "a picture outside of the folders" for name in set(truth) - set(classes)})
    return Labelled(classes, files, images, None, probabilities, tuple(others) if some else ())
