"""BatchNorm, max-pooling and ReLU behind a convolution as one differentiable step: two passes over memory each way.

On 28 x 28 maps of 64 channels these three take longer than the convolution in front of them. The passes are those of
fused_conv4, made a step of autograd here, so that what comes after the embedding needs no derivative written out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchreptile.core.torch_compile import compiled
from torchreptile.models.conv4 import fused as fused_conv4
from torchreptile.models.conv4.fused import Activate, Backtrack


class FusedBlock:
    """A compiled block; each shape of maps is compiled once."""

    def __init__(self, eps: float) -> None:
        """``eps``: of BatchNorm."""
        self._eps = eps
        self._activate: Activate = compiled(fused_conv4.activate)
        self._backtrack: Backtrack = compiled(fused_conv4.backtrack)

    def __call__(self, y: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> pooled, rounding down, (B, C, h, w); the mean (C,) and unbiased variance (C,) of ``y``."""
        pooled, mean, scale = _Block.apply(  # type: ignore[no-untyped-call]
            y, gamma, beta, self._activate, self._backtrack, self._eps
        )
        rows = y.numel() // y.shape[1]
        return pooled, mean, (scale.pow(-2) - self._eps).clamp_min(0) * rows / max(rows - 1, 1)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, gamma: Tensor, beta: Tensor, activate: Activate, backtrack: Backtrack, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        maps = y.detach().permute(0, 2, 3, 1)
        pooled, place, winner, mean, scale = activate(maps, gamma.detach(), beta.detach(), eps, False)
        ctx.save_for_backward(place, winner, mean, scale, maps, gamma)
        ctx.backtrack = backtrack
        ctx.mark_non_differentiable(mean, scale)
        return pooled.permute(0, 3, 1, 2), mean, scale

    @staticmethod
    def backward(ctx: Any, *d: Tensor) -> tuple[Tensor | None, ...]:
        place, winner, mean, scale, maps, gamma = ctx.saved_tensors
        to_maps, to_gamma, to_beta = ctx.backtrack(
            d[0].permute(0, 2, 3, 1).contiguous(), place, winner, mean, scale, maps, gamma
        )
        return to_maps.permute(0, 3, 1, 2), to_gamma, to_beta, None, None, None
