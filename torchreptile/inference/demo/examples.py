"""Generated symbols for users who would rather look than draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torchreptile.data.glyphs import draw, new_character, new_style


def example_set(classes: int, images: int, seed: int) -> NDArray[np.uint8]:
    """Generate new characters of one alphabet.

    Returns:
        (classes, images, 28, 28) uint8, ink 0 and paper 255; equal for equal seeds.
    """
    rng = np.random.default_rng(seed)
    style = new_style(rng)
    return np.stack([draw(new_character(style, rng), style, images, rng) for _ in range(classes)])
