"""Conversion of pictures of drawn lines to the form of Omniglot's drawings: black on white without greys."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FIELD = 105  # height and width of the field that Omniglot was drawn on, pixels
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


def scaled(lines: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Scale (H, W) to (side, side) as Omniglot is scaled, by dropping pixels."""
    return np.asarray(Image.fromarray(lines).resize((side, side), Image.Resampling.NEAREST))
