"""Fit a classifier to folders of pictures and label others, as ``reptile adapt`` does."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchreptile.core.csv_text import write_rows
from torchreptile.core.errors import DataError
from torchreptile.core.json_text import json_text
from torchreptile.data.own_images.class_folders import PictureFile, scan_folders, scan_pictures
from torchreptile.inference.classifier import FewShotClassifier


@dataclass(frozen=True, eq=False)
class Labelled:
    """Pictures with the predictions of a classifier.

    Attributes:
        classes: K names.
        files: N pictures.
        images: (N, C, H, W) uint8 images as the network gets them.
        truth: N names of the folders that the pictures are in; None unless all of them are classes.
        probabilities: (N, K) probabilities.
        unknown_folders: folders whose names are not classes, if other folders' are.
    """

    classes: tuple[str, ...]
    files: tuple[PictureFile, ...]
    images: Tensor
    truth: tuple[str, ...] | None
    probabilities: NDArray[np.float32]
    unknown_folders: tuple[str, ...] = ()

    @property
    def predicted(self) -> list[str]:
        """The N most probable classes."""
        return [self.classes[index] for index in self.probabilities.argmax(1)]

    @property
    def confidence(self) -> list[float]:
        """The N probabilities of the predicted classes, from 0 to 1."""
        return [float(value) for value in self.probabilities.max(1)]

    @property
    def right(self) -> int | None:
        """The number of correct predictions; None where the truth is unknown."""
        if self.truth is None:
            return None
        return sum(guess == true for guess, true in zip(self.predicted, self.truth, strict=True))

    def to_csv(self) -> str:
        """Return a CSV line per picture: name, predicted class, confidence, true class if known, all probabilities.

        A name that a spreadsheet would take for a formula has a quote before it, as in
        :func:`torchreptile.core.csv_text.csv_cell`.
        """
        file = io.StringIO()
        known = ["true"] if self.truth is not None else []
        rows: list[list[str]] = [["file", "predicted", "confidence", *known, *(f"p({name})" for name in self.classes)]]
        for number, (picture, guess, confidence) in enumerate(
            zip(self.files, self.predicted, self.confidence, strict=True)
        ):
            true = [self.truth[number]] if self.truth is not None else []
            shares = [f"{share:.6f}" for share in self.probabilities[number]]
            rows.append([picture.name, guess, f"{confidence:.6f}", *true, *shares])
        write_rows(file, rows)
        return file.getvalue()

    def to_json(self) -> str:
        """Return the classes and all predictions as indented JSON."""
        pictures = []
        for number, (picture, guess, confidence) in enumerate(
            zip(self.files, self.predicted, self.confidence, strict=True)
        ):
            shares = {
                name: round(float(p), 6) for name, p in zip(self.classes, self.probabilities[number], strict=True)
            }
            entry = {
                "file": picture.name,
                "predicted": guess,
                "confidence": round(confidence, 6),
                "probabilities": shares,
            }
            pictures.append(entry | ({"true": self.truth[number]} if self.truth is not None else {}))
        content = {"classes": self.classes, "right": self.right, "of": len(self.files), "pictures": pictures}
        return json_text(content, indent=2, ascii_only=False)


def fit_folder(classifier: FewShotClassifier, support: Path) -> dict[str, int]:
    """Fit a classifier to a folder with one subfolder of pictures per class.

    Returns:
        The number of pictures by class.

    Raises:
        DataError: the folder has no classes, or holds other files; the message names all problems.
    """
    if not support.is_dir():
        raise DataError(f"{support}: {'not a folder' if support.exists() else 'no such folder'}")
    found = scan_folders(support)
    if found.splits is not None:
        splits = " and ".join(sorted(set(found.splits.values())))
        raise DataError(f"{support} is divided into {splits}; name one of these folders")
    pairs = [(picture.path, name) for name, pictures in found.classes.items() for picture in pictures]
    classifier.fit([path for path, _ in pairs], [name for _, name in pairs])
    return {name: len(pictures) for name, pictures in found.classes.items()}


def label_pictures(classifier: FewShotClassifier, query: Path) -> Labelled:
    """Label one picture, or all pictures in a folder and its subfolders.

    If every picture is in a subfolder named like a class, those names are the truth. A classifier that rejects pictures
    takes those in other subfolders for pictures of none of the classes, if some subfolders are named like classes.

    Raises:
        DataError: there are no pictures, or other files; the message names all problems.
    """
    groups = scan_pictures(query)
    classes = tuple(str(name) for name in classifier.classes_)
    pairs = [(picture, name) for name, pictures in groups.items() for picture in pictures]
    files = tuple(picture for picture, _ in pairs)
    images = classifier.prepare([picture.path for picture in files])
    probabilities = classifier.fitted_.probabilities(images)
    truth = tuple(name for _, name in pairs)
    if classifier.fitted_.rejection is not None and set(truth) & set(classes[:-1]):
        truth = tuple(name if name in classes else classes[-1] for name in truth)
    if set(truth) <= set(classes):
        return Labelled(classes, files, images, truth, probabilities)
    some_known = bool(set(truth) & set(classes))
    others = sorted({name or "a picture outside the folders" for name in set(truth) - set(classes)})
    return Labelled(classes, files, images, None, probabilities, tuple(others) if some_known else ())
