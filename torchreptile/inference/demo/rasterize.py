"""What people draw and drop, as the pixels that the network was trained on: black ink on white paper, 255 and 0.

Omniglot's drawings were made on a field of 105 pixels and scaled to 28 by taking every fourth pixel or so, which leaves
lines about one pixel wide, in characters that fill a little more than half of the width. Whoever draws on a page fills
it as they like; so drawings are brought to the size and the place that those had.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torchreptile.core.errors import DataError
from torchreptile.data.glyphs import SIDE, ink
from torchreptile.data.own_images.decode import Picture, decode_all
from torchreptile.data.own_images.line_drawings import FIELD, black_and_white, scaled

Strokes = list[NDArray[np.float64]]
"""Of (P, 2) points x, y each, P >= 1: the way of the pen, from 0 to 1 across the paper, y downwards."""

# Measured on Omniglot, in shares of the paper's width; see docs/demo.md.
SMALLEST, LARGEST = 16 / 28, 18 / 28  # the longer side of a drawing
MIDDLE = 13.5 / 28  # of the drawing's box
PEN = 1.12  # width, pixels of 28
GAP = 0.25 / 28  # between the points of a line once it is drawn; under half a pixel, so that no line has a hole
DOT = 0.06  # what is smaller has no size, only a place


def pixels_of_strokes(strokes: Strokes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A drawing as the network sees it: (C, H, W) = ``shape``, H = W.

    Raises:
        DataError: there is nothing on the paper.
    """
    if not strokes:
        raise DataError("the drawing is empty; draw something")
    points = placed(np.concatenate([_filled(stroke, GAP) for stroke in strokes]))
    pixels = ink((points * SIDE - 0.5).view(np.complex128).T, np.array([[PEN]]))[0]
    return shaped(pixels, shape)


def placed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P, 2) points moved, and scaled where they are very large or small, to lie on the paper as Omniglot's do.

    A dot stays a dot, whatever its size.
    """
    low, high = points.min(0), points.max(0)
    extent = float((high - low).max())
    scale = float(np.clip(extent, SMALLEST, LARGEST)) / extent if extent > DOT else 1.0
    return np.ascontiguousarray((points - (low + high) / 2) * scale + MIDDLE)


def pixels_of_picture(content: bytes, shape: tuple[int, int, int], by_hand: bool) -> NDArray[np.uint8]:
    """An image file as the network sees it: (C, H, W) = ``shape``.

    Args:
        content: of the file.
        shape: of the network's images.
        by_hand: bring it to black ink on white paper, as drawings are.

    Raises:
        DataError: it is no picture that can be used.
    """
    channels, side, _ = shape
    if not by_hand:
        return _decoded(content, side, channels)
    lines = black_and_white(_decoded(content, FIELD, 1)[0])
    if lines is None:
        raise DataError("it shows no dark lines on light paper")
    return shaped(lines, shape)


def shaped(lines: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Black lines on white, (H, W), as (C, H, W) = ``shape``, scaled as Omniglot's are: no grey comes between."""
    channels, side, _ = shape
    return np.repeat(scaled(lines, side)[None], channels, 0)


def _decoded(content: bytes, side: int, channels: int) -> NDArray[np.uint8]:
    """(channels, side, side), through the checks that every data set's pictures pass."""
    name = "picture"
    images, problems = decode_all([Picture(name, lambda: content)], side, channels, "lanczos")
    if problems:
        raise DataError(problems[0].removeprefix(f"{name}: "))
    return images[0].numpy()


def _filled(stroke: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """(P, 2) points to as many more along the lines between them that none is further than ``gap`` from the next."""
    steps = np.ceil(np.linalg.norm(np.diff(stroke, axis=0), axis=1) / gap).astype(np.int64)
    shares = [
        start + (end - start) * np.linspace(0, 1, n, endpoint=False)[:, None]
        for start, end, n in zip(stroke, stroke[1:], steps, strict=False)
    ]
    return np.concatenate([*shares, stroke[-1:]])
