"""The blocks of :mod:`torchreptile.models.conv4.matmul` as torch.compile fuses them best on a GPU.

Gathers and folds are index arithmetic, from which the compiler makes one kernel each, together with what lies before
and behind; between the matrix products nothing else is left. A GPU spends its time on launches and on memory here,
so few kernels are what counts. The numbers differ in rounding alone.
"""

from __future__ import annotations

import functools
import math
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.models.conv4.matmul import Block, padded_size
from torchreptile.models.conv4.network import KERNEL, Params, same_padding

ALIGNED = 4  # numbers that a GPU loads at once
ROWS_AT_ONCE = 512  # at most, of a product over rows: more of them side by side keep more processors busy


@final
class FusableBlock(Block):
    """The same block, for a compiler."""

    def __init__(self, stride: int, number: int, params: Params) -> None:
        super().__init__(stride, number, params)
        self.taps = self.weight.shape[1]  # 9 * C
        self.weight = _aligned(self.weight, 1)

    def gathered(self, x: Tensor, side: int) -> Tensor:
        """Of padded maps by their indices."""
        tasks, batch = x.shape[:2]
        before, _ = same_padding(self.size, self.stride)
        after = padded_size(side, self.stride) - self.size - before
        padded = F.pad(x, (0, 0, before, after, before, after))
        along = torch.arange(side, device=x.device)[:, None] * self.stride
        along = along + torch.arange(KERNEL, device=x.device)  # (side, 3): the pixels that patches see, along one axis
        patches = padded[:, :, along[:, None, :, None], along[None, :, None, :]]  # (T, B, side, side, 3, 3, C)
        return _aligned(patches.reshape(tasks, batch * side * side, self.taps), 2)

    def summed(self, d_patches: Tensor) -> Tensor:
        """For every pixel, what the patches that saw it say."""
        tasks, batch, side = self.active.shape[:3]
        patches = d_patches[:, :, : self.taps].reshape(tasks, batch, side, side, KERNEL, KERNEL, self.channels)
        pixels = torch.arange(self.size, device=d_patches.device) + same_padding(self.size, self.stride)[0]
        seen = []  # along one axis: the patch, the tap, and whether there is such a pair
        for back in range(math.ceil(KERNEL / self.stride)):
            patch, tap = pixels // self.stride - back, pixels % self.stride + back * self.stride
            there = (patch >= 0) & (patch < side) & (tap < KERNEL)
            seen.append((patch.clamp(0, side - 1), tap.clamp(max=KERNEL - 1), there))
        terms = [
            torch.where(
                (row_there[:, None] & column_there)[:, :, None],
                patches[:, :, row[:, None], column[None, :], row_tap[:, None], column_tap[None, :]],
                0.0,
            )
            for row, row_tap, row_there in seen
            for column, column_tap, column_there in seen
        ]
        return functools.reduce(torch.add, terms)

    def statistics(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """In one pass over memory."""
        variance, mean = torch.var_mean(y, 1, correction=0, keepdim=True)
        return y - mean, variance

    def pooled(self) -> Tensor:
        """As maxima of four shifted maps."""
        a, b, c, d = _corners(self.active)
        return torch.maximum(torch.maximum(a, b), torch.maximum(c, d))

    def unpooled(self, d: Tensor) -> Tensor:
        """Each pixel looks whether it was the one: the first of equals, as in torch's pooling."""
        first, along = _largest(self.active), torch.arange(self.active.shape[2], device=d.device)
        cell, place = along // 2, along % 2
        here = 2 * place[:, None] + place[None, :]  # (H, W) 0 to 3
        rows, columns = cell[:, None], cell[None, :]
        return torch.where(first[:, :, rows, columns] == here[:, :, None], d[:, :, rows, columns], 0.0)

    def of_weight(self, d: Tensor) -> Tensor:
        """In parts, summed at the end: so few results of so many rows would keep few processors busy."""
        tasks, rows, _ = d.shape
        fewest = math.ceil(rows / ROWS_AT_ONCE)
        parts = next((parts for parts in range(fewest, 2 * fewest + 1) if rows % parts == 0), 1)
        # Cut and merged in two steps: of a cut that does not go along an axis the compiler would make a copy.
        left, right = (m.view(tasks, parts, rows // parts, m.shape[2]).flatten(0, 1) for m in (self.patches, d))
        products = torch.bmm(left.transpose(1, 2), right)
        summed = products.view(tasks, parts, *products.shape[1:]).sum(1)
        return summed[:, : self.taps].contiguous()

    def of_bias(self, d_beta: Tensor) -> Tensor:
        """0, made along with something else and not in a kernel of its own; no number where ``d_beta`` is none."""
        return 0.0 * d_beta


def _aligned(matrices: Tensor, axis: int) -> Tensor:
    """(T, M, N) with zeros at the end of that axis, to whole groups of what is loaded at once."""
    missing = -matrices.shape[axis] % ALIGNED
    return F.pad(matrices, (0, missing) if axis == 2 else (0, 0, 0, missing))


def _corners(maps: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four pixels of every 2 x 2 cell, row by row; outside of the maps, which have no negative values, -1."""
    odd = maps.shape[2] % 2
    maps = F.pad(maps, (0, 0, 0, odd, 0, odd), value=-1.0)
    return maps[:, :, ::2, ::2], maps[:, :, ::2, 1::2], maps[:, :, 1::2, ::2], maps[:, :, 1::2, 1::2]


def _largest(maps: Tensor) -> Tensor:
    """Which pixel of every cell is the largest, the first of equals: (T, B, cell, cell, C) 0 to 3."""
    a, b, c, d = _corners(maps)
    top, bottom = (b > a).to(torch.int8), (d > c).to(torch.int8) + 2
    return torch.where(torch.maximum(c, d) > torch.maximum(a, b), bottom, top)
