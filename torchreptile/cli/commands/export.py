"""``reptile export``: write a classifier as a program that runs without this package."""

from __future__ import annotations

from pathlib import Path

from torchreptile.cli.commands.console import show_lines
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.models.custom import requested_network


def export(classifier: Path, to: Path, model: str) -> int:
    """Write the program and print its inputs and outputs; return the exit code."""
    notes = FewShotClassifier.load(classifier, network=requested_network(model)).export(to)
    many, number = ("any number of images", "N") if notes.any_number else ("one image", "1")
    shape = ", ".join(map(str, (number, *notes.image_shape)))
    show_lines(
        f"input: {many} per call, ({shape}) floats from 0 (black) to 1 (white); "
        f"output: probabilities ({number}, {len(notes.classes)}) of {', '.join(notes.classes)}",
        to,
    )
    return 0
