"""Drawings moved and turned a little, so that a learner of raw pixels does not take them by their place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_TURN = math.pi / 16  # either way
LARGEST_SHIFT = 0.1  # of the width or height, either way
DRAWS = 3  # random numbers per image: turn, shift to the side, shift up or down


def jittered(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    """Every image moved and turned by itself; what comes in from outside is white.

    Args:
        images: (..., C, H, W) from 0 (ink) to 1 (paper).
        draws: (..., 3) from 0 to 1.
        amount: in proportion to ``LARGEST_TURN`` and ``LARGEST_SHIFT``; 1 is all of them.

    Returns:
        The same shape, by bilinear interpolation.
    """
    flat, by = images.flatten(0, -4), (2 * draws.flatten(0, -2) - 1) * amount
    angle, shift = by[:, 0] * LARGEST_TURN, 2 * LARGEST_SHIFT * by[:, 1:]  # the grid is 2 wide
    cos, sin = angle.cos(), angle.sin()
    # Where a pixel of the result comes from: (N, 2, 3).
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    grid = F.affine_grid(torch.cat([turn, shift[:, :, None]], 2).to(flat.dtype), list(flat.shape), align_corners=False)
    return (1 - F.grid_sample(1 - flat, grid, align_corners=False)).view_as(images)
