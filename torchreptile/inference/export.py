"""Export a fitted classifier as a program that runs without this package: torch.export (.pt2) or ONNX (.onnx).

The program takes images, (N, C, H, W) floats from 0 (black) to 1 (white), and returns probabilities (N, K); every image
is labelled alone. Algorithms that adapt a network take one image per call (N = 1), because in BatchNorm each query
shares a batch with the support set; algorithms that compare embeddings take any number.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
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
# How far a probability of the program may be from the classifier's: sums in another order shift logits by about 1e-5 of
# their size, and BatchNorm over few images by more; a program that computes something else misses by far more.
ABSOLUTE, RELATIVE = 1e-5, 1e-3
INPUT, OUTPUT = "images", "probabilities"
INFO_FILE = "classifier.json"  # name of the program's information in a .pt2 file


@dataclass(frozen=True)
class ProgramInfo:
    """What the user of an exported program needs to know; it is stored in the file.

    Attributes:
        classes: K labels as text, in the order of the probabilities.
        image_shape: (C, H, W) of the images, or (C, L) of series.
        any_number: whether a call takes any number of images; otherwise one.
        scaling: the filter that resizes pictures to ``image_shape``.
    """

    classes: list[str]
    image_shape: tuple[int, ...]
    any_number: bool
    scaling: Scaling

    def as_text(self) -> dict[str, str]:
        """Return the entries stored in the file, JSON where they are not plain text."""
        layout = "(N, C, H, W)" if len(self.image_shape) == 3 else "(N, C, L)"
        return {
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "image_shape": json.dumps(self.image_shape),
            "images": f"floats from 0 (black) to 1 (white), {layout}" + ("" if self.any_number else ", N = 1"),
            "scaling": self.scaling,
        }


class _Program(nn.Module):
    """The program: images to probabilities."""

    def __init__(self, adapted: Adapted, shares: Callable[[Tensor], Tensor], inverted: bool) -> None:
        super().__init__()
        self._adapted, self._shares, self._inverted = adapted, shares, inverted

    def forward(self, images: Tensor) -> Tensor:
        """Return the (N, K) probabilities of (N, C, H, W) images."""
        images = 1 - images if self._inverted else images
        return self._shares(self._adapted.inductive(images[None])[0]).float()


def export(
    adapted: Adapted,
    shares: Callable[[Tensor], Tensor],
    inverted: bool,
    scaling: Scaling,
    classes: list[str],
    examples: Tensor,
    expected: NDArray[np.float32],
    path: Path,
) -> ProgramInfo:
    """Write a program and compare it with the classifier.

    Args:
        adapted: a network adapted to one support set, in plain torch operations.
        shares: gives the probabilities of logits (N, K).
        inverted: whether the network takes inverted images; the program then inverts its input.
        scaling: the filter by which the user of the program resizes pictures.
        classes: K labels.
        examples: (N, C, H, W) images from 0 to 1 to compare on, at least two.
        expected: (N, K) probabilities that the classifier gives them.
        path: .pt2 or .onnx file, which is replaced if it exists.

    Returns:
        The information stored in the file.

    Raises:
        ConfigError: another suffix, a missing folder, or the packages for ONNX are missing.
        RunError: the network cannot be exported, or the program's probabilities differ.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"{path} ends in {path.suffix or 'nothing'}; a program's name ends in {' or '.join(SUFFIXES)}"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: the folder {path.parent} is missing")
    if path.suffix == ".onnx":
        _require_onnx()
    with _quietly(), torch.no_grad():
        adapted.inductive(examples[None])  # caches what depends on the support set alone, which the program then holds
        program, any_number = _traced(_Program(adapted, shares, inverted), examples)
        info = ProgramInfo(classes, tuple(examples.shape[1:]), any_number, scaling)
        with replacing(path) as temporary:
            if path.suffix == ".onnx":
                found = _write_onnx(program, info, examples, temporary)
            else:
                found = _write_pt2(program, info, examples, temporary)
            if difference := compared(found, expected):
                raise RunError(f"{path}: {difference}")
    return info


def compared(found: NDArray[np.float32], expected: NDArray[np.float32]) -> str:
    """Return what is wrong with a program's probabilities; empty if they are the classifier's up to rounding.

    Args:
        found: (N, K) probabilities of the program.
        expected: (N, K) probabilities of the classifier.

    Example:
        >>> compared(np.array([[0.69998, 0.30002]]), np.array([[0.7, 0.3]]))
        ''
        >>> compared(np.array([[0.4, 0.6]]), np.array([[0.7, 0.3]]))
        'the program labels 1 of 1 images otherwise than the classifier; its probabilities differ by up to 3.0e-01'
    """
    allowed, gap = ABSOLUTE + RELATIVE * np.maximum(found, expected), np.abs(found - expected)
    by_program = found.argmax(1)
    images = np.arange(len(expected))
    # A tie within the rounding may be broken either way.
    lead = expected.max(1) - expected[images, by_program]
    other = int((lead > 2 * allowed.max(1)).sum())
    if other:
        what = f"labels {other:,} of {len(images):,} images otherwise than the classifier; its probabilities differ"
        return f"the program {what} by up to {gap.max():.1e}"
    if not np.all(gap <= allowed):  # NaN too
        return (
            f"the program's probabilities differ from the classifier's by up to {gap.max():.1e}, which is more than "
            f"rounding ({ABSOLUTE:.0e} + {RELATIVE:.0e} of the probability)"
        )
    return ""


def _traced(program: nn.Module, examples: Tensor) -> tuple[ExportedProgram, bool]:
    """The exported program, and whether it takes any number of images; otherwise it takes one."""
    try:
        return torch.export.export(program, (examples,), dynamic_shapes=({0: Dim.DYNAMIC},)), True
    except Exception:  # one image per call may still work
        pass
    try:
        return torch.export.export(program, (examples[:1],)), False
    except Exception as error:  # a custom network may fail in any way
        raise RunError(f"the network cannot be exported: {first_line(error)}") from error


def _write_pt2(program: ExportedProgram, info: ProgramInfo, examples: Tensor, path: Path) -> NDArray[np.float32]:
    """Write a .pt2 file and return the probabilities that it gives the examples."""
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={INFO_FILE: json.dumps(info.as_text(), ensure_ascii=False)})
    loaded = torch.export.load(path).module()
    return _in_calls(lambda images: loaded(torch.from_numpy(images)).numpy(), examples, info)


def _write_onnx(program: ExportedProgram, info: ProgramInfo, examples: Tensor, path: Path) -> NDArray[np.float32]:
    """Write a .onnx file and return the probabilities that it gives the examples."""
    import onnxruntime

    converted = torch.onnx.export(
        program, (), None, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
    )
    assert converted is not None
    converted.model.metadata_props.update(info.as_text())
    converted.save(path)
    session = onnxruntime.InferenceSession(str(path))
    return _in_calls(lambda images: session.run(None, {INPUT: images})[0], examples, info)


def _in_calls(call: Any, examples: Tensor, info: ProgramInfo) -> NDArray[np.float32]:
    """The program's probabilities for all examples, as many per call as it takes."""
    images = examples.numpy()
    step = len(images) if info.any_number else 1
    return np.concatenate([call(images[first : first + step]) for first in range(0, len(images), step)])


def _require_onnx() -> None:
    """Raise ConfigError unless the packages for ONNX are installed."""
    try:
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'torchreptile[onnx]'") from error
    assert onnxruntime is not None
    assert onnxscript is not None


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the exporters' warnings, logs and printed graphs; their exceptions still reach the caller."""
    logger = logging.getLogger("torch")
    level = logger.level
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)
