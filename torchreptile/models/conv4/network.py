"""Conv4, the convolutional network of the Reptile and MAML papers, for one task or for T tasks at once.

Omniglot: four strided convolutions, 113,221 parameters at 5-way (112,261 in MAML's variant). mini-ImageNet: four
convolutions with max-pooling, 34,661 parameters at 5-way. Nichol et al. 2018, appendix A; Glorot-uniform kernels, zero
biases and 'SAME' padding follow the TensorFlow code that produced the published numbers.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchreptile.models.built_in import BuiltInNetwork, ExecutionRequest, Params, Shape, image_sizes
from torchreptile.models.conv4.executions import conv4_execution
from torchreptile.models.conv4.layers import BATCH_NORM_EPS, BLOCKS, KERNEL, heads, same_padding
from torchreptile.models.execution.execution import Execution


class Conv4(BuiltInNetwork):
    """Four blocks of [3x3 convolution, BatchNorm, ReLU, perhaps 2x2 max-pool] and a linear head.

    BatchNorm always uses the statistics of the batch and keeps no running averages, so the prediction for an image
    depends on the other images of its batch. Evaluation is therefore reported both transductive (all queries in one
    batch) and inductive (each query alone with the support set).

    Example:
        >>> import torch
        >>> network = Conv4(channels=1, size=28, way=5, hidden=64, downsample="stride")
        >>> network.initialise(torch.Generator().manual_seed(0))
        >>> sum(p.numel() for p in network.parameters())
        113221
        >>> tuple(network(torch.zeros(10, 1, 28, 28)).shape)
        (10, 5)
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
        """Build the network; call :meth:`initialise` to draw its weights.

        Args:
            channels: of the images.
            size: height and width of the square images, in pixels.
            way: number of classes.
            hidden: filters of every block.
            downsample: halve the maps by ``stride`` 2, or by 2x2 max-``pool`` rounding up.
            averaged: the head takes the mean of each map of the last block instead of its pixels.
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
        """Draw Glorot-uniform kernels; set biases to 0 and BatchNorm scales to 1."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias) if module.bias is not None else None
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()

    def execution(self, request: ExecutionRequest) -> Execution:
        """Return the requested execution; Conv4 supports all of them.

        Args:
            request: the requested execution, and what it is for.

        Raises:
            ConfigError: the native execution was requested and is not possible.
        """
        return conv4_execution(self, request)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, way) of images (B, C, H, W)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(F.pad(x, 2 * same_padding(x.shape[-1], self.stride)))
            x = self._pool(F.relu(norm(x)))
        out: Tensor = self.head(self._features(x))
        return out

    def forward_grouped(self, params: Params, x: Tensor) -> Tensor:
        """Return logits (T, B, way) of T networks, computed as one network whose convolutions have T groups.

        Args:
            params: this module's parameters by name, (T, ...) each.
            x: (T, B, C, H, W) images.
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
            # Statistics are per channel over (B, H, W), and with T * C channels each task has its own.
            x = F.batch_norm(x, None, None, gamma, beta, training=True, eps=BATCH_NORM_EPS)
            x = self._pool(F.relu(x))
        maps = x.view(batch, tasks, -1, *x.shape[2:])
        return heads(params, self._features(maps.transpose(0, 1)))

    def shared_features(self, params: Params, x: Tensor) -> Tensor:
        """Return the head's inputs (T, B, features), with one body for all tasks and each task its own batch.

        Args:
            params: this module's parameters by name, common to all tasks (no leading axis).
            x: (T, B, C, H, W) images.
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
        """Return the head's inputs (..., features) from the last maps (..., hidden, h, w)."""
        return maps.mean((-2, -1)) if self.averaged else maps.flatten(-3)

    def _pool(self, x: Tensor) -> Tensor:
        """Return the maps pooled, or unchanged where the convolutions are strided."""
        return x if self.stride == 2 else F.max_pool2d(x, 2, ceil_mode=True)


def for_images(shape: Shape, way: int) -> Conv4:
    """Return the Reptile paper's network for images of ``shape`` (C, H, W).

    Images below 64 pixels get strided convolutions with 64 filters, as for Omniglot; larger ones get max-pooling with
    32 filters, as for mini-ImageNet.

    Raises:
        ConfigError: the images are not square.

    Example:
        >>> sum(p.numel() for p in for_images((3, 84, 84), way=5).parameters())
        34661
    """
    channels, size, _ = image_sizes(shape, "conv4", square=True)
    if size < 64:
        return Conv4(channels, size, way, hidden=64, downsample="stride")
    return Conv4(channels, size, way, hidden=32, downsample="pool")


def maml_for_images(shape: Shape, way: int) -> Conv4:
    """Return the MAML paper's network for images of ``shape`` (C, H, W).

    It differs from :func:`for_images` below 64 pixels, where the head takes the mean of each of the 64 last maps, as in
    the code of Finn et al. 2017.

    Example:
        >>> sum(p.numel() for p in maml_for_images((1, 28, 28), way=5).parameters())
        112261
    """
    channels, size, _ = image_sizes(shape, "conv4", square=True)
    if size < 64:
        return Conv4(channels, size, way, hidden=64, downsample="stride", averaged=True)
    return for_images(shape, way)
