"""The Reptile paper's two convolutional networks, and the same networks for T tasks at once.

Omniglot: four strided convolutions, 113,221 parameters at 5-way. mini-ImageNet: four convolutions with
max-pooling, 34,661 parameters at 5-way. (Appendix A of Nichol et al. 2018; Glorot-uniform kernels, zero
biases and 'SAME' padding come from the TensorFlow code the numbers were made with.)
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3  # TensorFlow's default, not PyTorch's 1e-5
BLOCKS = 4
KERNEL = 3

Params = dict[str, Tensor]


def same_padding(size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's 'SAME' padding before and after an axis of ``size`` pixels, for a kernel of 3.

    At stride 2 it is (0, 1) for even sizes and (1, 1) for odd ones: a plain ``padding=1`` would shift the
    network by a pixel on every even-sized map.
    """
    total = max((math.ceil(size / stride) - 1) * stride + KERNEL - size, 0)
    return total // 2, total - total // 2


class Conv4(nn.Module):
    """Four blocks of [3x3 convolution, BatchNorm, ReLU] and a linear layer.

    BatchNorm always uses the statistics of the batch at hand and keeps no running averages, so what is
    predicted for an image depends on the other images in its batch: evaluation says how they are chosen.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        way: int,
        hidden: int,
        downsample: Literal["stride", "pool"],
        averaged: bool = False,
    ) -> None:
        """Build the network with all weights zero; call :meth:`initialise` to draw them.

        Args:
            channels: of the images.
            size: height and width of the (square) images.
            way: classes to tell apart.
            hidden: filters of every block.
            downsample: halve the maps by ``stride`` 2, or by 2x2 max-``pool`` rounding up.
            averaged: the head sees the mean of every map of the last block, not each pixel of it.
        """
        super().__init__()
        self.stride, self.averaged = 2 if downsample == "stride" else 1, averaged
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if block == 0 else hidden, hidden, KERNEL, self.stride) for block in range(BLOCKS)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS, track_running_stats=False) for _ in range(BLOCKS)
        )
        for _ in range(BLOCKS):
            size = math.ceil(size / 2)
        self.head = nn.Linear(hidden if averaged else hidden * size * size, way)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw Glorot-uniform kernels; set biases to 0, BatchNorm scales to 1."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias) if module.bias is not None else None
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, way)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(F.pad(x, 2 * same_padding(x.shape[-1], self.stride)))
            x = self._pool(F.relu(norm(x)))
        out: Tensor = self.head(self._features(x))
        return out

    def forward_grouped(self, params: Params, x: Tensor) -> Tensor:
        """T networks as one, each convolution with T groups: (T, B, C, H, W) -> logits (T, B, way).

        Args:
            params: this module's parameters by name, each with a leading axis of T tasks.
            x: T batches of images.
        """
        tasks, batch = x.shape[:2]
        x = x.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)  # (B, T * C, H, W)
        for block in range(BLOCKS):
            weight, bias = params[f"convs.{block}.weight"].flatten(0, 1), params[f"convs.{block}.bias"].flatten()
            before, after = same_padding(x.shape[-1], self.stride)
            if before == after:
                x = F.conv2d(x, weight, bias, self.stride, before, groups=tasks)
            else:
                padded = F.pad(x, (before, after, before, after))
                x = F.conv2d(padded, weight, bias, self.stride, groups=tasks)
            gamma, beta = params[f"norms.{block}.weight"].flatten(), params[f"norms.{block}.bias"].flatten()
            # Statistics per channel over (B, H, W): with T * C channels, each task has its own.
            x = F.batch_norm(x, None, None, gamma, beta, training=True, eps=BATCH_NORM_EPS)
            x = self._pool(F.relu(x))
        maps = x.view(batch, tasks, -1, *x.shape[2:])
        return heads(params, self._features(maps.transpose(0, 1)))

    def shared_features(self, params: Params, x: Tensor) -> Tensor:
        """What the heads see of one body: (T, B, C, H, W) -> (T, B, features), every task a batch of its own.

        Args:
            params: this module's parameters by name, for all tasks the same.
            x: T batches of images.
        """
        features = []
        for maps in x.unbind(0):
            maps = maps.contiguous(memory_format=torch.channels_last)
            for block in range(BLOCKS):
                maps = F.pad(maps, 2 * same_padding(maps.shape[-1], self.stride))
                maps = F.conv2d(maps, params[f"convs.{block}.weight"], params[f"convs.{block}.bias"], self.stride)
                gamma, beta = params[f"norms.{block}.weight"], params[f"norms.{block}.bias"]
                maps = F.batch_norm(maps, None, None, gamma, beta, training=True, eps=BATCH_NORM_EPS)
                maps = self._pool(F.relu(maps))
            features.append(self._features(maps))
        return torch.stack(features)

    def _features(self, maps: Tensor) -> Tensor:
        """(..., hidden, h, w) -> what the head sees, (..., features)."""
        return maps.mean((-2, -1)) if self.averaged else maps.flatten(-3)

    def _pool(self, x: Tensor) -> Tensor:
        return x if self.stride == 2 else F.max_pool2d(x, 2, ceil_mode=True)


def heads(params: Params, features: Tensor) -> Tensor:
    """T linear layers: (T, B, features) -> (T, B, way)."""
    return torch.baddbmm(params["head.bias"].unsqueeze(1), features, params["head.weight"].transpose(1, 2))


def for_images(shape: tuple[int, int, int], way: int) -> Conv4:
    """The paper's network for images of ``shape`` (C, H, W): strided for small ones, pooled from 64 pixels on."""
    channels, size, _ = shape
    if size < 64:
        return Conv4(channels, size, way, hidden=64, downsample="stride")
    return Conv4(channels, size, way, hidden=32, downsample="pool")


def maml_for_images(shape: tuple[int, int, int], way: int) -> Conv4:
    """The same for MAML: of small images its head sees 64 averages, as in the code of Finn et al. 2017."""
    channels, size, _ = shape
    if size < 64:
        return Conv4(channels, size, way, hidden=64, downsample="stride", averaged=True)
    return for_images(shape, way)
