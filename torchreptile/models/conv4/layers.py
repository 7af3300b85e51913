"""Constants, padding and heads that all executions of Conv4 share."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchreptile.models.built_in import Params

BATCH_NORM_EPS = 1e-3  # TensorFlow's default, not PyTorch's 1e-5
BLOCKS = 4
KERNEL = 3


def same_padding(size: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's 'SAME' padding before and after an axis of ``size`` pixels, for a kernel of 3.

    At stride 2 it is (0, 1) for even sizes and (1, 1) for odd ones; a plain ``padding=1`` would shift the network by a
    pixel on every even-sized map.

    Example:
        >>> same_padding(28, stride=2), same_padding(7, stride=2)
        ((0, 1), (1, 1))
    """
    total = max((math.ceil(size / stride) - 1) * stride + KERNEL - size, 0)
    return total // 2, total - total // 2


def heads(params: Params, features: Tensor) -> Tensor:
    """Return the logits (T, B, way) of T linear heads.

    Args:
        params: with ``head.weight`` (T, way, features) and ``head.bias`` (T, way).
        features: (T, B, features) inputs.
    """
    return torch.baddbmm(params["head.bias"].unsqueeze(1), features, params["head.weight"].transpose(1, 2))
