"""Drawings and picture files as the network's images: black ink (0) on white paper (255).

Omniglot's drawings were made on 105 x 105 pixels and reduced to 28 x 28 by taking about every fourth pixel, which
leaves lines about one pixel wide, in characters that fill a little more than half of the width. Drawings on the page
have any size and position, so they are scaled and moved to match.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from torchreptile.core.errors import DataError
from torchreptile.data.glyphs import SIDE, ink
from torchreptile.data.own_images.decode import Picture, decode_all
from torchreptile.data.own_images.line_drawings import FIELD, black_and_white, scaled, thickened

Strokes = list[NDArray[np.float64]]
"""One array of (P, 2) points x, y per stroke, P >= 1, from 0 to 1 across the paper, y downwards."""

# Measured on Omniglot, as shares of the paper's width; see docs/demo.md.
SMALLEST, LARGEST = 16 / 28, 18 / 28  # longer side of a drawing
MIDDLE = 13.5 / 28  # centre of the drawing's bounding box
PEN = 1.12  # line width in pixels at 28 x 28
GAP = 0.25 / 28  # between the points of a rendered line: under half a pixel, so that no line has a gap
DOT = 0.06  # smaller drawings are dots, which are not scaled

MOST_PIXELS = 4 * 2**20  # of a picture file; the page reduces larger ones before it sends them


def pixels_of_strokes(strokes: Strokes, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return a drawing as (C, H, W) = ``shape`` uint8, H = W.

    Raises:
        DataError: the drawing is empty.
    """
    if not strokes:
        raise DataError("the drawing is empty; draw something")
    points = placed(np.concatenate([_filled(stroke, GAP) for stroke in strokes]))
    pixels = ink((points * SIDE - 0.5).view(np.complex128).T, np.array([[PEN]]))[0]
    return shaped(pixels, shape)


def placed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (P, 2) points centred as Omniglot's drawings are, and scaled if they are larger or smaller than those.

    A dot is moved but not scaled.
    """
    low, high = points.min(0), points.max(0)
    extent = float((high - low).max())
    scale = float(np.clip(extent, SMALLEST, LARGEST)) / extent if extent > DOT else 1.0
    return np.ascontiguousarray((points - (low + high) / 2) * scale + MIDDLE)


def pixels_of_picture(content: bytes, shape: tuple[int, int, int], by_hand: bool) -> NDArray[np.uint8]:
    """Return a picture file as (C, H, W) = ``shape`` uint8.

    Args:
        content: bytes of the file.
        shape: (C, H, W) of the network's images.
        by_hand: convert it to black ink on white paper, for weights trained on drawings.

    Raises:
        DataError: the file is not a readable picture, or shows no lines where ``by_hand`` needs them.
    """
    channels, side, _ = shape
    width, height = _size(content)
    if width * height > MOST_PIXELS:
        raise DataError(f"the picture is {width} x {height}; at most {MOST_PIXELS // 2**20} megapixels are allowed")
    if not by_hand:
        return _decoded(content, side, channels)
    lines = black_and_white(_decoded(content, FIELD, 1)[0])
    if lines is None:
        raise DataError("it shows no dark lines on light paper")
    return shaped(lines if (width, height) == (FIELD, FIELD) else thickened(lines), shape)


def shaped(lines: NDArray[np.uint8], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return (H, W) black lines on white as (C, H, W) = ``shape``, reduced without grey as Omniglot's are."""
    channels, side, _ = shape
    return np.repeat(scaled(lines, side)[None], channels, 0)


def _decoded(content: bytes, side: int, channels: int) -> NDArray[np.uint8]:
    """(channels, side, side) uint8 of a picture file, with the checks of pictures in data sets."""
    name = "picture"
    images, problems = decode_all([Picture(name, lambda: content)], side, channels, "lanczos")
    if problems:
        raise DataError(problems[0].removeprefix(f"{name}: "))
    return images[0].numpy()


def _size(content: bytes) -> tuple[int, int]:
    """Width and height of a picture file by its header; zeros if it has none, which the decoder explains."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size
    except Exception:
        return 0, 0


def _filled(stroke: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """(P, 2) points with more inserted on the lines between them, none farther than ``gap`` from the next."""
    steps = np.ceil(np.linalg.norm(np.diff(stroke, axis=0), axis=1) / gap).astype(np.int64)
    shares = [
        start + (end - start) * np.linspace(0, 1, n, endpoint=False)[:, None]
        for start, end, n in zip(stroke, stroke[1:], steps, strict=False)
    ]
    return np.concatenate([*shares, stroke[-1:]])
