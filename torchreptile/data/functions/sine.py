"""Sine waves: the functions of the toy experiments of Reptile and MAML, generated when they are drawn.

f(x) = a sin(x + b) for x from -5 to 5, with a from U[0.1, 5]. Reptile draws b from U[0, 2 pi] and uses 50 evenly spaced
points (Nichol et al. 2018, the sine wave case study; the points are those of its published code). MAML draws b from
U[0, pi] and points from U[-5, 5] (Finn et al. 2017, section 5.1).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

AMPLITUDES = (0.1, 5.0)
REACH = 5.0  # x is from minus this to this


@dataclass(frozen=True)
class Sines:
    """A distribution of sine waves.

    Attributes:
        name: name of the data set.
        phase: b is drawn from 0 to this.
        points: number of evenly spaced points from which support points are drawn; query points are then evenly spaced
            too, so that the error covers the entire curve. 0: both are drawn uniformly.
        device: the device of episodes.
    """

    name: str
    phase: float
    points: int
    device: torch.device
    targets: ClassVar[int] = 1  # numbers to predict per point
    image_shape: ClassVar[tuple[int, ...]] = (1,)  # shape of an input

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the distribution, in hexadecimal; equal exactly when the distributions are equal."""
        return hashlib.sha256(f"{self.name} {self.phase} {self.points}".encode()).hexdigest()

    def to(self, device: torch.device | str) -> Sines:
        """Return the distribution with episodes on ``device``."""
        return replace(self, device=torch.device(device))


def sines(dataset: str) -> Sines:
    """Return the data set ``sine`` or ``sine-maml``.

    >>> sines("sine").points, sines("sine-maml").points
    (50, 0)
    """
    here = torch.device("cpu")
    return Sines(dataset, math.pi, 0, here) if dataset == "sine-maml" else Sines(dataset, 2 * math.pi, 50, here)
