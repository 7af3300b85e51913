"""T Conv4 networks side by side as gathered patches and batched matrix products, backward pass written out.

Convolutions with few channels and small maps keep neither a CPU nor a GPU busy one at a time. As matrix
products over all tasks they do, and what lies between the products is plain arithmetic for a compiler to
fuse. The backward pass is written out because the derivative of a strided gather, as autograd has it, is a
scatter full of divisions; here it is four shifted additions.

Maps are kept channels-last: (T, B, H, W, C).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.models.conv4 import BATCH_NORM_EPS, BLOCKS, KERNEL, Conv4, Params, heads, same_padding


def forward(net: Conv4, params: Params, x: Tensor) -> Tensor:
    """(T, B, C, H, W) -> logits (T, B, way); ``params`` by name, each with a leading axis of T."""
    return _forward(net, params, x)[0]


def loss_and_gradient(net: Conv4, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
    """Each task's mean cross-entropy (T,), and its gradient.

    A convolution's bias gets a gradient of exactly 0: the BatchNorm behind it takes it out again.

    Args:
        net: the form of the networks.
        params: by name, each with a leading axis of T.
        x: (T, B, C, H, W) images.
        y: (T, B) labels.
    """
    logits, features, blocks = _forward(net, params, x)
    log_p = logits.log_softmax(-1)
    losses = -log_p.gather(2, y.unsqueeze(2)).mean((1, 2))
    classes = torch.arange(logits.shape[2], device=y.device)
    d = (log_p.exp() - (y.unsqueeze(2) == classes).to(log_p.dtype)) / y.shape[1]
    gradient = {"head.weight": torch.bmm(d.transpose(1, 2), features).to(x.dtype), "head.bias": d.sum(1)}
    d = _maps_of(torch.bmm(d, params["head.weight"]).to(x.dtype), blocks[-1].side)
    for number in reversed(range(BLOCKS)):
        d = blocks[number].backward(d, gradient, to_maps=number > 0)
    return losses, gradient


def _forward(net: Conv4, params: Params, x: Tensor) -> tuple[Tensor, Tensor, list[_Block]]:
    x = x.permute(0, 1, 3, 4, 2)
    blocks = []
    for number in range(BLOCKS):
        blocks.append(_Block(net.stride, number, params))
        x = blocks[-1].forward(x)
    features = x.permute(0, 1, 4, 2, 3).flatten(2)  # channels first, as the head's weights count them
    return heads(params, features).to(features.dtype), features, blocks


def _maps_of(features: Tensor, side: int) -> Tensor:
    """(T, B, C * side * side) -> (T, B, side, side, C)."""
    return features.reshape(*features.shape[:2], -1, side, side).permute(0, 1, 3, 4, 2)


class _Block:
    """Convolution, BatchNorm, ReLU and perhaps pooling; keeps what the backward pass needs."""

    def __init__(self, stride: int, number: int, params: Params) -> None:
        self.stride, self.names = stride, (f"convs.{number}.weight", f"norms.{number}.weight", f"norms.{number}.bias")
        self.bias, self.kernel_axes = f"convs.{number}.bias", params[self.names[0]].shape
        kernels, self.gamma, beta = (params[name] for name in self.names)
        self.weight = kernels.permute(0, 3, 4, 2, 1).flatten(1, 3)  # (T, 9 * C, filters)
        self.gamma, self.beta = self.gamma.unsqueeze(1), beta.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        tasks, batch, self.size, _, self.channels = x.shape
        conv_side = math.ceil(self.size / self.stride)
        self.patches = _unfold(x, conv_side, self.stride)
        # The convolution's bias would be taken out again by BatchNorm.
        y = torch.bmm(self.patches, self.weight).to(x.dtype)  # (T, B * side^2, filters)
        self.centred = y - y.mean(1, keepdim=True)
        self.scale = torch.rsqrt(self.centred.square().mean(1, keepdim=True) + BATCH_NORM_EPS)
        active = F.relu(self.centred * (self.scale * self.gamma) + self.beta)
        self.active = active.view(tasks, batch, conv_side, conv_side, -1)
        if self.stride == 2:
            self.side = conv_side
            return self.active
        planes = self.active.flatten(0, 1).permute(0, 3, 1, 2)
        pooled, self.taken = F.max_pool2d(planes, 2, ceil_mode=True, return_indices=True)
        self.side = pooled.shape[-1]
        return pooled.permute(0, 2, 3, 1).reshape(tasks, batch, self.side, self.side, -1)

    def backward(self, d: Tensor, gradient: Params, to_maps: bool) -> Tensor:
        """From the gradient of the output (T, B, side, side, filters) to that of the input, if wanted."""
        if self.stride == 1:
            d = self._unpool(d)
        rows = self.centred.shape[1]
        d = torch.where(self.active > 0, d, 0.0).flatten(1, 3)
        normal = self.centred * self.scale
        d_beta, d_gamma = d.sum(1, keepdim=True), (d * normal).sum(1, keepdim=True)
        d = (self.scale * self.gamma) * (d - d_beta / rows - normal * (d_gamma / rows))
        d_weight = torch.bmm(self.patches.transpose(1, 2), d).to(d.dtype)
        tasks, filters, channels, height, width = self.kernel_axes
        kernels = d_weight.view(tasks, height, width, channels, filters).permute(0, 4, 3, 1, 2)
        gradient |= zip(self.names, (kernels, d_gamma.squeeze(1), d_beta.squeeze(1)), strict=True)
        gradient[self.bias] = torch.zeros_like(gradient[self.names[1]])
        if not to_maps:
            return d
        batch, side = self.active.shape[1:3]
        d_patches = torch.bmm(d, self.weight.transpose(1, 2)).to(d.dtype)
        return _fold(d_patches.view(tasks, batch, side, side, KERNEL, KERNEL, channels), self.size, self.stride)

    def _unpool(self, d: Tensor) -> Tensor:
        """The gradient before pooling: each goes to the pixel that was the largest of its four."""
        planes = self.active.flatten(0, 1).permute(0, 3, 1, 2)
        spread: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            d.flatten(0, 1).permute(0, 3, 1, 2), planes, [2, 2], [2, 2], [0, 0], [1, 1], True, self.taken
        )
        return spread.permute(0, 2, 3, 1).reshape(self.active.shape)


def _padded_size(side: int, stride: int) -> int:
    """Side of the padded maps: what the patches reach, rounded up to whole strides."""
    return stride * (side - 1) + KERNEL + (stride - 1)


def _unfold(x: Tensor, side: int, stride: int) -> Tensor:
    """Every 3x3 patch of 'SAME'-padded maps: (T, B, H, W, C) -> (T, B * side * side, 9 * C)."""
    tasks, batch, size, _, channels = x.shape
    padded, (before, _) = _padded_size(side, stride), same_padding(size, stride)
    after = padded - size - before
    x = F.pad(x, (0, 0, before, after, before, after)).contiguous()
    row = padded * channels
    # The three pixels of a patch's row lie side by side in memory.
    shape = (tasks, batch, side, side, KERNEL, KERNEL * channels)
    strides = (batch * padded * row, padded * row, stride * row, stride * channels, row, 1)
    return x.as_strided(shape, strides).reshape(tasks, batch * side * side, KERNEL * KERNEL * channels)


@torch.library.custom_op("torchreptile::fold", mutates_args=())
def _fold_padded(patches: Tensor, stride: int) -> Tensor:
    """The transpose of gathering patches: (T, B, side, side, 3, 3, C) -> padded maps (T, B, size, size, C).

    An operation of its own, so that the compiler leaves it alone: it would turn every addition into a pass
    over the whole map.
    """
    tasks, batch, side, _, _, _, channels = patches.shape
    size = _padded_size(side, stride)
    maps = patches.new_zeros(tasks, batch, size, size, channels)
    if stride == 1:
        for i in range(KERNEL):
            for j in range(KERNEL):
                maps[:, :, i : i + side, j : j + side] += patches[:, :, :, :, i, j]
        return maps
    cells = maps.view(tasks, batch, side + 1, 2, side + 1, 2, channels)
    taps = patches.permute(0, 1, 2, 4, 3, 5, 6)  # (T, B, row, tap row, column, tap column, C)
    cells[:, :, :side, :, :side] = taps[:, :, :, :2, :, :2]
    cells[:, :, :side, :, 1:, 0] += taps[:, :, :, :2, :, 2]
    cells[:, :, 1:, 0, :side] += taps[:, :, :, 2, :, :2]
    cells[:, :, 1:, 0, 1:, 0] += taps[:, :, :, 2, :, 2]
    return maps


@_fold_padded.register_fake
def _(patches: Tensor, stride: int) -> Tensor:
    tasks, batch, side, _, _, _, channels = patches.shape
    size = _padded_size(side, stride)
    return patches.new_empty(tasks, batch, size, size, channels)


def _fold(patches: Tensor, size: int, stride: int) -> Tensor:
    """The same without the padding: maps (T, B, size, size, C)."""
    before, _ = same_padding(size, stride)
    inside = slice(before, before + size)
    maps: Tensor = _fold_padded(patches, stride)
    return maps[:, :, inside, inside]
