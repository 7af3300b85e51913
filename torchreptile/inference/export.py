"""A fitted classifier as a program that needs none of this package: torch.export (.pt2) or ONNX (.onnx).

It takes images (N, C, H, W) of floats from 0 (black) to 1 (white) and gives probabilities (N, K), each image labelled
alone. Learners that train a network label one image per call (N = 1), because each has the whole support set as
BatchNorm's company; learners that compare embeddings take any number.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from torchreptile.core.errors import ConfigError, RunError, first_line
from torchreptile.core.files import replacing
from torchreptile.data.own_images.decode import Scaling

if TYPE_CHECKING:
    from torchreptile.algorithms.base import Adapted

SUFFIXES = (".pt2", ".onnx")
TOLERANCE = 1e-5  # of probabilities, between the program and the classifier
INPUT, OUTPUT = "images", "probabilities"
NOTES = "classifier.json"  # the name that .pt2 files keep them under


@dataclass(frozen=True)
class Notes:
    """What goes with the program.

    Attributes:
        classes: (K,) labels, as text.
        image_shape: (C, H, W).
        any_number: of images per call; otherwise one.
        scaling: how pictures are brought to that size.
    """

    classes: list[str]
    image_shape: tuple[int, int, int]
    any_number: bool
    scaling: Scaling

    def as_text(self) -> dict[str, str]:
        """By name, as the files keep them: JSON where it is not plain text."""
        return {
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "image_shape": json.dumps(self.image_shape),
            "images": "floats from 0 (black) to 1 (white), (N, C, H, W)" + ("" if self.any_number else ", N = 1"),
            "scaling": self.scaling,
        }


class _Program(nn.Module):
    """Images in, probabilities out."""

    def __init__(self, adapted: Adapted, inverted: bool) -> None:
        super().__init__()
        self._adapted, self._inverted = adapted, inverted

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        shown = 1 - images if self._inverted else images
        return self._adapted.inductive(shown[None])[0].softmax(1)


def export(
    adapted: Adapted,
    inverted: bool,
    scaling: Scaling,
    classes: list[str],
    examples: Tensor,
    expected: NDArray[np.float32],
    path: Path,
) -> Notes:
    """Write a program and hold it against what the classifier says.

    Args:
        adapted: one learner, computing in plain torch operations.
        inverted: whether it is shown inverted images; the program inverts them itself.
        scaling: how pictures are brought to the network's size; the program's user does that.
        classes: K labels.
        examples: (N, C, H, W) from 0 to 1, at least two images.
        expected: (N, K) the classifier's probabilities for them.
        path: .pt2 or .onnx; what is there is replaced.

    Raises:
        ConfigError: another suffix, or the packages for ONNX are missing.
        RunError: the network cannot be exported, or the program says something else.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"{path} ends in {path.suffix or 'nothing'}; a program's name ends in {' or '.join(SUFFIXES)}"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.suffix == ".onnx":
        _require_onnx()
    with _quietly(), torch.no_grad():
        adapted.inductive(examples[None])  # what it makes of the support set at first use is no part of the program
        program, any_number = _traced(_Program(adapted, inverted), examples)
        shape = examples.shape
        notes = Notes(classes, (shape[1], shape[2], shape[3]), any_number, scaling)
        with replacing(path) as temporary:
            if path.suffix == ".onnx":
                said = _write_onnx(program, notes, examples, temporary)
            else:
                said = _write_pt2(program, notes, examples, temporary)
            gap = float(np.abs(said - expected).max())
            if not gap <= TOLERANCE:
                raise RunError(
                    f"{path}: the program differs from the classifier by {gap:.1e}, more than {TOLERANCE:.0e}"
                )
    return notes


def _traced(program: nn.Module, examples: Tensor) -> tuple[ExportedProgram, bool]:
    """As many images as one likes if that can be, else one."""
    try:
        return torch.export.export(program, (examples,), dynamic_shapes=({0: Dim.DYNAMIC},)), True
    except Exception:  # whatever stood in the way of any number need not stand in the way of one
        pass
    try:
        return torch.export.export(program, (examples[:1],)), False
    except Exception as error:  # a network of one's own may fail in any way, and that is the answer
        raise RunError(f"the network cannot be exported: {first_line(error)}") from error


def _write_pt2(program: ExportedProgram, notes: Notes, examples: Tensor, path: Path) -> NDArray[np.float32]:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={NOTES: json.dumps(notes.as_text(), ensure_ascii=False)})
    again = torch.export.load(path).module()
    return _in_calls(lambda images: again(torch.from_numpy(images)).numpy(), examples, notes)


def _write_onnx(program: ExportedProgram, notes: Notes, examples: Tensor, path: Path) -> NDArray[np.float32]:
    import onnxruntime

    converted = torch.onnx.export(
        program, (), None, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
    )
    assert converted is not None
    converted.model.metadata_props.update(notes.as_text())
    converted.save(path)
    session = onnxruntime.InferenceSession(str(path))
    return _in_calls(lambda images: session.run(None, {INPUT: images})[0], examples, notes)


def _in_calls(call: Any, examples: Tensor, notes: Notes) -> NDArray[np.float32]:
    """All examples, as many at a time as the program takes."""
    images = examples.numpy()
    step = len(images) if notes.any_number else 1
    return np.concatenate([call(images[first : first + step]) for first in range(0, len(images), step)])


def _require_onnx() -> None:
    try:
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'torchreptile[onnx]'") from error
    assert onnxruntime is not None
    assert onnxscript is not None


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporters say of themselves; what matters is in the exception."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
