"""Sine waves: the functions of the toy experiments of Reptile and MAML. They are drawn, so there is nothing to store.

f(x) = a sin(x + b) for x from -5 to 5, with a from U[0.1, 5]. Reptile has b from U[0, 2 pi] (Nichol et al. 2018,
the sine wave case study; the 50 evenly spaced points are those of the code published with it), MAML b from U[0, pi]
and points from U[-5, 5] (Finn et al. 2017, section 5.1).
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
    """Where sine waves are drawn from.

    Attributes:
        name: of the data set.
        phase: b is from 0 to this.
        points: support points are some of so many evenly spaced ones, and query points are evenly spaced as well, so
            that the error is one over the whole curve; 0: both are drawn uniformly.
        device: where.
    """

    name: str
    phase: float
    points: int
    device: torch.device
    targets: ClassVar[int] = 1  # numbers to predict
    image_shape: ClassVar[tuple[int, ...]] = (1,)  # of a point

    @property
    def fingerprint(self) -> str:
        """Equal exactly when the waves are drawn alike."""
        return hashlib.sha256(f"{self.name} {self.phase} {self.points}".encode()).hexdigest()

    def to(self, device: torch.device | str) -> Sines:
        """The same on ``device``."""
        return replace(self, device=torch.device(device))


def sines(dataset: str) -> Sines:
    """The data set ``sine`` or ``sine-maml``."""
    here = torch.device("cpu")
    return Sines(dataset, math.pi, 0, here) if dataset == "sine-maml" else Sines(dataset, 2 * math.pi, 50, here)
