"""A data set of your own: bars of random angle and place, one angle per class.

    reptile train --dataset examples/dataset.py:bars --grey --image-size 28 --max-minutes 1 --out runs/bars
    reptile evaluate runs/bars --dataset examples/dataset.py:bars

The function returns the images of every class, an ImageStore, or Splits of them; it is called when data are needed.
"""

from __future__ import annotations

import math

import numpy as np

CLASSES, IMAGES, SIDE = 60, 20, 28


def bars() -> dict[str, np.ndarray]:
    """Return for every class its images, (20, 28, 28) uint8: white bars on black, 3 degrees apart."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return {
        f"{180 * k / CLASSES:g} degrees": _bars_at(math.pi * k / CLASSES, rng, rows, columns) for k in range(CLASSES)
    }


def _bars_at(angle: float, rng: np.random.Generator, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    distance = rows * math.cos(angle) + columns * math.sin(angle)
    offsets = rng.uniform(-5, 5, size=(IMAGES, 1, 1))
    return np.asarray(255 * (abs(distance - offsets) < 2), dtype=np.uint8)
