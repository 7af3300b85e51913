"""Pictures of drawn lines, brought to what Omniglot's drawings were brought to: black on white, and no grey between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FIELD = 105  # pixels, height and width of what Omniglot's people drew on
CONTRAST = 40  # levels of 255 by which ink must be darker than paper


def black_and_white(grey: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Dark lines on light paper, (H, W), as black on white; None where there are no such lines."""
    darkest, paper = int(grey.min()), int(np.median(grey))
    if paper - darkest < CONTRAST:
        return None
    return np.where(grey < (darkest + paper) / 2, 0, 255).astype(np.uint8)


def scaled(lines: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(H, W) as (side, side), as Omniglot's are scaled: by leaving pixels out."""
    return np.asarray(Image.fromarray(lines).resize((side, side), Image.Resampling.NEAREST))
