"""Small random shifts and rotations of drawings, for learners of raw pixels, which would otherwise go by position."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_TURN = math.pi / 16  # radians, in either direction
LARGEST_SHIFT = 0.1  # share of the width or height, in either direction
DRAWS = 3  # random numbers per image: rotation, horizontal shift, vertical shift


def jittered(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    """Shift and rotate every image at random; pixels from outside the image are white.

    Args:
        images: (..., C, H, W) float, from 0 (ink) to 1 (paper).
        draws: (..., 3) float, uniform random numbers from 0 to 1.
        amount: the range of the jitter, as a share of ``LARGEST_TURN`` and ``LARGEST_SHIFT``.

    Returns:
        (..., C, H, W) float, by bilinear interpolation.
    """
    flat, by = images.flatten(0, -4), (2 * draws.flatten(0, -2) - 1) * amount
    angle, shift = by[:, 0] * LARGEST_TURN, 2 * LARGEST_SHIFT * by[:, 1:]  # the grid is 2 wide
    cos, sin = angle.cos(), angle.sin()
    # (N, 2, 3): the affine map from a pixel of the result to its source.
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    grid = F.affine_grid(torch.cat([turn, shift[:, :, None]], 2).to(flat.dtype), list(flat.shape), align_corners=False)
    return (1 - F.grid_sample(1 - flat, grid, align_corners=False)).view_as(images)
