"""BatchNorm, max-pooling and ReLU after a convolution as one autograd function: two passes over memory each way.

On 28 x 28 maps of 64 channels these three take longer than the convolution before them. The passes are those of
:mod:`torchreptile.models.conv4.fused`, wrapped in an autograd function so that any loss can follow the embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchreptile.core.torch_compile import compiled
from torchreptile.models.conv4.fused import Activate, Backtrack, activate, backtrack


class FusedBlock:
    """BatchNorm, max-pooling and ReLU through torch.compile; each shape of maps is compiled once."""

    def __init__(self, eps: float) -> None:
        """Prepare the block; nothing is compiled before the first call.

        Args:
            eps: BatchNorm's, added to the variance.
        """
        self._eps = eps
        self._activate: Activate = compiled(activate)
        self._backtrack: Backtrack = compiled(backtrack)

    def __call__(self, y: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the block's output and the statistics of its input.

        Args:
            y: (B, C, H, W) a convolution's output.
            gamma: (C,) BatchNorm's scale.
            beta: (C,) BatchNorm's shift.

        Returns:
            Pooled maps (B, C, H // 2, W // 2), and the mean (C,) and unbiased variance (C,) of ``y``.
        """
        pooled, mean, scale = _Block.apply(  # type: ignore[no-untyped-call]
            y, gamma, beta, self._activate, self._backtrack, self._eps
        )
        rows = y.numel() // y.shape[1]
        return pooled, mean, (scale.pow(-2) - self._eps).clamp_min(0) * rows / max(rows - 1, 1)


class _Block(torch.autograd.Function):
    """The compiled passes as an autograd function."""

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
