"""T Conv4 networks as gathered patches and batched matrix products, with an explicit backward pass.

Convolutions with few channels and small maps keep neither a CPU nor a GPU busy one at a time. As matrix products over
all tasks they do, and the operations between the products are plain arithmetic that a compiler can fuse. The backward
pass is explicit because autograd's derivative of a strided gather is a scatter with many divisions; here it is four
shifted additions.

Everything here, the explicit gradient included, is differentiable by autograd, so that second order costs one more
backward pass.

Maps are channels-last: (T, B, H, W, C).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.models.built_in import Params
from torchreptile.models.conv4.layers import BATCH_NORM_EPS, BLOCKS, KERNEL, heads, same_padding

if TYPE_CHECKING:
    from torchreptile.models.conv4.network import Conv4


class Block:
    """Convolution, BatchNorm, ReLU and perhaps pooling of T networks; stores what the backward pass needs."""

    def __init__(self, stride: int, number: int, params: Params) -> None:
        """Take the parameters of block ``number``.

        Args:
            stride: of the convolution; 1 means that the block ends in 2x2 max-pooling.
            number: 0 to 3.
            params: by name, (T, ...) each, or (1, ...) to use one set of weights for all tasks.
        """
        self.stride, self.names = stride, (f"convs.{number}.weight", f"norms.{number}.weight", f"norms.{number}.bias")
        self.bias, self.kernel_axes = f"convs.{number}.bias", params[self.names[0]].shape
        kernels, self.gamma, beta = (params[name] for name in self.names)
        self.weight = kernels.permute(0, 3, 4, 2, 1).flatten(1, 3)  # (T, 9 * C, filters)
        self.gamma, self.beta = self.gamma.unsqueeze(1), beta.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (T, B, side, side, filters) of maps (T, B, H, W, C)."""
        tasks, batch, self.size, _, self.channels = x.shape
        conv_side = math.ceil(self.size / self.stride)
        self.patches = self.gathered(x, conv_side)
        # The convolution's bias is left out: BatchNorm would subtract it again.
        if len(self.weight) == tasks:
            y = torch.bmm(self.patches, self.weight).to(x.dtype)  # (T, B * side^2, filters)
        else:  # one set of weights for all tasks: one large product
            y = (self.patches @ self.weight[0]).to(x.dtype)
        self.centred, variance = self.statistics(y)
        self.scale = torch.rsqrt(variance + BATCH_NORM_EPS)
        active = F.relu(self.centred * (self.scale * self.gamma) + self.beta)
        self.active = active.view(tasks, batch, conv_side, conv_side, -1)
        maps = self.active if self.stride == 2 else self.pooled()
        self.side = maps.shape[2]
        return maps

    def backward(self, d: Tensor, gradient: Params, to_maps: bool) -> Tensor:
        """Return the gradient of the block's input, and add those of its parameters to ``gradient``.

        Args:
            d: (T, B, side, side, filters) gradient of the output.
            gradient: filled in place, by name.
            to_maps: whether the gradient of the input is needed; if not, the returned tensor has no meaning.
        """
        if self.stride == 1:
            d = self.unpooled(d)
        rows = self.centred.shape[1]
        d = torch.where(self.active > 0, d, 0.0).flatten(1, 3)
        normal = self.centred * self.scale
        d_beta, d_gamma = d.sum(1, keepdim=True), (d * normal).sum(1, keepdim=True)
        d = (self.scale * self.gamma) * (d - d_beta / rows - normal * (d_gamma / rows))
        d_weight = self.of_weight(d).to(d.dtype)
        tasks, filters, channels, height, width = self.kernel_axes
        kernels = d_weight.view(tasks, height, width, channels, filters).permute(0, 4, 3, 1, 2)
        gradient |= zip(self.names, (kernels, d_gamma.squeeze(1), d_beta.squeeze(1)), strict=True)
        gradient[self.bias] = self.of_bias(d_beta.squeeze(1))
        if not to_maps:
            return d
        d_patches = torch.bmm(d, self.weight.transpose(1, 2)).to(d.dtype)
        return self.summed(d_patches)

    def gathered(self, x: Tensor, side: int) -> Tensor:
        """Return the patches of maps (T, B, H, W, C), ``side`` per row: (T, B * side * side, 9 * C)."""
        return _unfold(x, side, self.stride)

    def summed(self, d_patches: Tensor) -> Tensor:
        """Return the gradient of the maps (T, B, H, W, C) from that of the patches."""
        tasks, batch, side, _, _ = self.active.shape
        taps = (KERNEL, KERNEL, self.channels)
        return _fold(d_patches.view(tasks, batch, side, side, *taps), self.size, self.stride)

    def statistics(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``y`` (T, rows, filters) minus its mean over rows, and its variance (T, 1, filters)."""
        centred = y - y.mean(1, keepdim=True)
        return centred, centred.square().mean(1, keepdim=True)

    def pooled(self) -> Tensor:
        """Return the maxima of every 2 x 2 cell, incomplete cells at the border included."""
        tasks, batch = self.active.shape[:2]
        planes = self.active.flatten(0, 1).permute(0, 3, 1, 2)
        pooled, self.taken = F.max_pool2d(planes, 2, ceil_mode=True, return_indices=True)
        side = pooled.shape[-1]
        return pooled.permute(0, 2, 3, 1).reshape(tasks, batch, side, side, -1)

    def unpooled(self, d: Tensor) -> Tensor:
        """Return the gradient before pooling: each goes to the pixel that was the largest of its cell."""
        planes = self.active.flatten(0, 1).permute(0, 3, 1, 2)
        spread: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            d.flatten(0, 1).permute(0, 3, 1, 2), planes, [2, 2], [2, 2], [0, 0], [1, 1], True, self.taken
        )
        return spread.permute(0, 2, 3, 1).reshape(self.active.shape)

    def of_weight(self, d: Tensor) -> Tensor:
        """Return the weight's gradient (T, 9 * C, filters) from that of the convolution's output (T, rows, filters)."""
        return torch.bmm(self.patches.transpose(1, 2), d)

    def of_bias(self, d_beta: Tensor) -> Tensor:
        """Return the gradient of the convolution's bias, which is 0."""
        return torch.zeros_like(d_beta)


def forward(net: Conv4, params: Params, x: Tensor) -> Tensor:
    """Return the logits (T, B, way) of T networks.

    Args:
        net: the architecture; its own weights are never used.
        params: by name, (T, ...) each.
        x: (T, B, C, H, W) images.
    """
    return _forward(net, params, x, Block)[0]


def loss_and_gradient(
    net: Conv4, params: Params, x: Tensor, y: Tensor, block: type[Block] = Block
) -> tuple[Tensor, Params]:
    """Return each task's mean cross-entropy (T,), and its gradient.

    A convolution's bias gets a gradient of exactly 0, because the BatchNorm after it subtracts it again.

    Args:
        net: the architecture; its own weights are never used.
        params: by name, (T, ...) each.
        x: (T, B, C, H, W) images.
        y: (T, B) labels.
        block: how a block is computed.
    """
    logits, features, blocks = _forward(net, params, x, block)
    log_p = logits.log_softmax(-1)
    losses = -log_p.gather(2, y.unsqueeze(2)).mean((1, 2))
    classes = torch.arange(logits.shape[2], device=y.device)
    d = (log_p.exp() - (y.unsqueeze(2) == classes).to(log_p.dtype)) / y.shape[1]
    gradient = {"head.weight": torch.bmm(d.transpose(1, 2), features).to(x.dtype), "head.bias": d.sum(1)}
    d = _maps_of(torch.bmm(d, params["head.weight"]).to(x.dtype), blocks[-1].side, net.averaged)
    for number in reversed(range(BLOCKS)):
        d = blocks[number].backward(d, gradient, to_maps=number > 0)
    return losses, gradient


def shared_features(net: Conv4, params: Params, x: Tensor) -> Tensor:
    """Return the head's inputs (T, B, features), with one body for all tasks.

    Args:
        net: the architecture; its own weights are never used.
        params: by name, common to all tasks (no leading axis).
        x: (T, B, C, H, W) images.
    """
    return _features(net, {name: p.unsqueeze(0) for name, p in params.items()}, x, Block)[0]


def _forward(net: Conv4, params: Params, x: Tensor, block: type[Block]) -> tuple[Tensor, Tensor, list[Block]]:
    """Return logits (T, B, way), the head's inputs (T, B, features), and the blocks, ready for the backward pass."""
    features, blocks = _features(net, params, x, block)
    return heads(params, features).to(features.dtype), features, blocks


def _features(net: Conv4, params: Params, x: Tensor, block: type[Block]) -> tuple[Tensor, list[Block]]:
    """Return the head's inputs (T, B, features), channels first as in the head's weights, and the blocks."""
    x = x.permute(0, 1, 3, 4, 2)
    blocks: list[Block] = []
    for number in range(BLOCKS):
        blocks.append(block(net.stride, number, params))
        x = blocks[-1].forward(x)
    return x.mean((2, 3)) if net.averaged else x.permute(0, 1, 4, 2, 3).flatten(2), blocks


def _maps_of(features: Tensor, side: int, averaged: bool) -> Tensor:
    """Return the gradient of the last maps (T, B, side, side, C) from that of the features (T, B, features)."""
    if averaged:
        return (features / side**2)[:, :, None, None, :].expand(-1, -1, side, side, -1)
    return features.reshape(*features.shape[:2], -1, side, side).permute(0, 1, 3, 4, 2)


def padded_size(side: int, stride: int) -> int:
    """Return the side of the padded maps: the reach of ``side`` patches, rounded up to a multiple of the stride."""
    return stride * (side - 1) + KERNEL + (stride - 1)


def _unfold(x: Tensor, side: int, stride: int) -> Tensor:
    """Return every 3x3 patch of 'SAME'-padded maps: (T, B, H, W, C) -> (T, B * side * side, 9 * C)."""
    tasks, batch, size, _, channels = x.shape
    padded, (before, _) = padded_size(side, stride), same_padding(size, stride)
    after = padded - size - before
    x = F.pad(x, (0, 0, before, after, before, after)).contiguous()
    # Maps that require a gradient go through the operation whose derivative is registered as the fold.
    patches = _unfold_padded(x, stride, side) if x.requires_grad else _patches(x, stride, side)
    return patches.reshape(tasks, batch * side * side, KERNEL * KERNEL * channels)


def _patches(x: Tensor, stride: int, side: int) -> Tensor:
    """Return a view of padded maps (T, B, size, size, C) as overlapping patches (T, B, side, side, 3, 3 * C)."""
    tasks, batch, padded, _, channels = x.shape
    row = padded * channels
    # The three pixels in a row of a patch are contiguous in memory.
    shape = (tasks, batch, side, side, KERNEL, KERNEL * channels)
    return x.as_strided(shape, (batch * padded * row, padded * row, stride * row, stride * channels, row, 1))


@torch.library.custom_op("torchreptile::unfold", mutates_args=())
def _unfold_padded(x: Tensor, stride: int, side: int) -> Tensor:
    """Gather patches (T, B, side, side, 3, 3, C) of padded maps (T, B, size, size, C): the transpose of folding."""
    patches = _patches(x.contiguous(), stride, side).clone(memory_format=torch.contiguous_format)
    return patches.view(*patches.shape[:-1], KERNEL, -1)


@_unfold_padded.register_fake
def _(x: Tensor, stride: int, side: int) -> Tensor:
    return x.new_empty(*x.shape[:2], side, side, KERNEL, KERNEL, x.shape[-1])


@torch.library.custom_op("torchreptile::fold", mutates_args=())
def _fold_padded(patches: Tensor, stride: int) -> Tensor:
    """Sum patches (T, B, side, side, 3, 3, C) into padded maps (T, B, size, size, C): the transpose of gathering.

    It is a custom operation to hide it from the compiler, which would turn every addition into a pass over the entire
    map.
    """
    tasks, batch, side, _, _, _, channels = patches.shape
    size = padded_size(side, stride)
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
    size = padded_size(side, stride)
    return patches.new_empty(tasks, batch, size, size, channels)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Save what the transpose needs: the stride, and the number of patches per row."""
    ctx.stride, ctx.side = inputs[1], inputs[0].shape[2]


# Each is the other's transpose, so both can be differentiated any number of times.
_fold_padded.register_autograd(lambda ctx, d: (_unfold_padded(d, ctx.stride, ctx.side), None), setup_context=_save)
_unfold_padded.register_autograd(
    lambda ctx, d: (_fold_padded(d.contiguous(), ctx.stride), None, None), setup_context=_save
)


def _fold(patches: Tensor, size: int, stride: int) -> Tensor:
    """Sum patches (T, B, side, side, 3, 3, C) into maps (T, B, size, size, C), without the padding."""
    before, _ = same_padding(size, stride)
    inside = slice(before, before + size)
    maps: Tensor = _fold_padded(patches, stride)
    return maps[:, :, inside, inside]
