"""The blocks of :mod:`torchreptile.models.conv4.matmul` in the form that torch.compile fuses best on a GPU.

Gathers and folds are index arithmetic, which the compiler fuses with the neighbouring operations into one kernel each,
so that there is one kernel between two matrix products. Here a GPU spends its time on launches and memory, so few
kernels are what counts. Results differ from the plain blocks in rounding only.
"""

from __future__ import annotations

import functools
import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.models.built_in import Params
from torchreptile.models.conv4.layers import KERNEL, same_padding
from torchreptile.models.conv4.matmul import Block, padded_size

ALIGNED = 4  # numbers that a GPU loads at once
ROWS_AT_ONCE = 512  # most rows of one product: more products in parallel keep more processors busy


@final
class FusableBlock(Block):
    """Convolution, BatchNorm, ReLU and perhaps pooling of T networks, written for torch.compile."""

    def __init__(self, stride: int, number: int, params: Params) -> None:
        """Take the parameters of block ``number``, padded to full groups of loads.

        Args:
            stride: of the convolution; 1 means that the block ends in 2x2 max-pooling.
            number: 0 to 3.
            params: by name, (T, ...) each.
        """
        super().__init__(stride, number, params)
        self.taps = self.weight.shape[1]  # 9 * C
        self.weight = _aligned(self.weight, 1)

    def gathered(self, x: Tensor, side: int) -> Tensor:
        """Return the patches of maps (T, B, H, W, C), by indexing: (T, B * side * side, 9 * C, padded)."""
        tasks, batch = x.shape[:2]
        before, _ = same_padding(self.size, self.stride)
        after = padded_size(side, self.stride) - self.size - before
        padded = F.pad(x, (0, 0, before, after, before, after))
        along = torch.arange(side, device=x.device)[:, None] * self.stride
        along = along + torch.arange(KERNEL, device=x.device)  # (side, 3): the pixels of each patch along one axis
        patches = padded[:, :, along[:, None, :, None], along[None, :, None, :]]  # (T, B, side, side, 3, 3, C)
        return _aligned(patches.reshape(tasks, batch * side * side, self.taps), 2)

    def summed(self, d_patches: Tensor) -> Tensor:
        """Return the gradient of the maps (T, B, H, W, C): for every pixel, the sum over the patches containing it."""
        tasks, batch, side = self.active.shape[:3]
        patches = d_patches[:, :, : self.taps].reshape(tasks, batch, side, side, KERNEL, KERNEL, self.channels)
        pixels = torch.arange(self.size, device=d_patches.device) + same_padding(self.size, self.stride)[0]
        pairs = []  # along one axis: a patch that contains the pixel, the tap, and whether the pair exists
        for back in range(math.ceil(KERNEL / self.stride)):
            patch, tap = pixels // self.stride - back, pixels % self.stride + back * self.stride
            exists = (patch >= 0) & (patch < side) & (tap < KERNEL)
            pairs.append((patch.clamp(0, side - 1), tap.clamp(max=KERNEL - 1), exists))
        terms = [
            torch.where(
                (row_exists[:, None] & column_exists)[:, :, None],
                patches[:, :, row[:, None], column[None, :], row_tap[:, None], column_tap[None, :]],
                0.0,
            )
            for row, row_tap, row_exists in pairs
            for column, column_tap, column_exists in pairs
        ]
        return functools.reduce(torch.add, terms)

    def statistics(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``y`` minus its mean over rows, and its variance, in one pass over memory."""
        variance, mean = torch.var_mean(y, 1, correction=0, keepdim=True)
        return y - mean, variance

    def pooled(self) -> Tensor:
        """Return the maxima of every 2 x 2 cell, as maxima of four shifted maps."""
        a, b, c, d = _corners(self.active)
        return torch.maximum(torch.maximum(a, b), torch.maximum(c, d))

    def unpooled(self, d: Tensor) -> Tensor:
        """Return the gradient before pooling: each goes to the first largest pixel of its cell, as in torch."""
        first, along = _largest(self.active), torch.arange(self.active.shape[2], device=d.device)
        cell, place = along // 2, along % 2
        here = 2 * place[:, None] + place[None, :]  # (H, W) 0 to 3
        rows, columns = cell[:, None], cell[None, :]
        return torch.where(first[:, :, rows, columns] == here[:, :, None], d[:, :, rows, columns], 0.0)

    def of_weight(self, d: Tensor) -> Tensor:
        """Return the weight's gradient (T, 9 * C, filters), summed from parts of the rows.

        A single product of so many rows has few results, and would keep few processors busy.
        """
        tasks, rows, _ = d.shape
        fewest = math.ceil(rows / ROWS_AT_ONCE)
        parts = next((parts for parts in range(fewest, 2 * fewest + 1) if rows % parts == 0), 1)
        # Split and merged in two steps: the compiler would copy for a split that does not follow an axis.
        left, right = (m.view(tasks, parts, rows // parts, m.shape[2]).flatten(0, 1) for m in (self.patches, d))
        products = torch.bmm(left.transpose(1, 2), right)
        summed = products.view(tasks, parts, *products.shape[1:]).sum(1)
        return summed[:, : self.taps].contiguous()

    def of_bias(self, d_beta: Tensor) -> Tensor:
        """Return 0, fused into another kernel; it is NaN where ``d_beta`` is not finite."""
        return 0.0 * d_beta


def _aligned(matrices: Tensor, axis: int) -> Tensor:
    """Return matrices (T, M, N) zero-padded along ``axis`` to a multiple of the numbers loaded at once."""
    missing = -matrices.shape[axis] % ALIGNED
    return F.pad(matrices, (0, missing) if axis == 2 else (0, 0, 0, missing))


def _corners(maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four pixels of every 2 x 2 cell, row by row; -1 outside the maps, which are never negative."""
    odd = maps.shape[2] % 2
    maps = F.pad(maps, (0, 0, 0, odd, 0, odd), value=-1.0)
    return maps[:, :, ::2, ::2], maps[:, :, ::2, 1::2], maps[:, :, 1::2, ::2], maps[:, :, 1::2, 1::2]


def _largest(maps: Tensor) -> Tensor:
    """Return which pixel of every cell is the first largest, 0 to 3: (T, B, cell, cell, C)."""
    a, b, c, d = _corners(maps)
    top, bottom = (b > a).to(torch.int8), (d > c).to(torch.int8) + 2
    return torch.where(torch.maximum(c, d) > torch.maximum(a, b), bottom, top)
