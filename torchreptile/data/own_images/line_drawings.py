"""Conversion of pictures of drawn lines to the form of Omniglot's drawings: black on white without greys."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FIELD = 105  # height and width of the field that Omniglot was drawn on, pixels
THICKNESS = 3.6  # pixels, as measured by line_width: lines this wide are met by every fourth pixel
CONTRAST = 40  # grey levels of 255 by which ink must be darker than paper


def black_and_white(grey: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Convert dark lines on light paper to black on white.

    Args:
        grey: (H, W) uint8.

    Returns:
        (H, W) uint8 of 0 and 255, or None if the picture has no such lines.
    """
    darkest, paper = int(grey.min()), int(np.median(grey))
    if paper - darkest < CONTRAST:
        return None
    return np.where(grey < (darkest + paper) / 2, 0, 255).astype(np.uint8)


def thickened(lines: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return black lines on white, thick enough that dropping pixels neither breaks nor loses them.

    Omniglot's lines are about 4.4 of 105 pixels wide, and about every fourth pixel is kept.

    Args:
        lines: (FIELD, FIELD) uint8 of 0 and 255.
    """
    ink = lines == 0
    for step in range(4):
        if line_width(ink) >= THICKNESS:
            break
        # One pixel more, below and to the right, and above and to the left in turn, so that lines stay in their place.
        framed, first = np.pad(ink, 1), step % 2
        both = framed[first : first + len(ink)] | framed[first + 1 : first + 1 + len(ink)]
        ink = both[:, first : first + ink.shape[1]] | both[:, first + 1 : first + 1 + ink.shape[1]]
    return np.where(ink, 0, 255).astype(np.uint8)


def line_width(ink: NDArray[np.bool_]) -> float:
    """Return about how wide lines are, in pixels: twice their area by the length of their outline.

    The sides of the outline's pixels are too long for oblique lines by up to the root of 2, and the number of these
    pixels is too small by as much; the length is the geometric mean of both.

    Example:
        >>> ink = np.zeros((105, 105), bool)
        >>> ink[20:80, 50:53] = True
        >>> round(line_width(ink), 1)
        2.9
    """
    framed = np.pad(ink, 1)
    sides = int((framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum())
    inside = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    outline = int((ink & ~inside).sum())
    return 2 * int(ink.sum()) / max(math.sqrt(sides * outline), 1.0)


def scaled(lines: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale (H, W) to (side, side) as Omniglot is scaled, by dropping pixels."""
    return np.asarray(Image.fromarray(lines).resize((side, side), Image.Resampling.NEAREST))
