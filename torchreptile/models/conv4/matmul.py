"""T Conv4 networks side by side as gathered patches and batched matrix products, backward pass written out.

Convolutions with few channels and small maps keep neither a CPU nor a GPU busy one at a time. As matrix
products over all tasks they do, and what lies between the products is plain arithmetic for a compiler to
fuse. The backward pass is written out because the derivative of a strided gather, as autograd has it, is a
scatter full of divisions; here it is four shifted additions.

Everything here can be differentiated, the written-out gradient too: that is what second order costs nothing more for
than one pass of autograd through it.

Maps are kept channels-last: (T, B, H, W, C).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.models.conv4.network import BATCH_NORM_EPS, BLOCKS, KERNEL, Conv4, Params, heads, same_padding


class Block:
    """Convolution, BatchNorm, ReLU and perhaps pooling; keeps what the backward pass needs."""

    def __init__(self, stride: int, number: int, params: Params) -> None:
        self.stride, self.names = stride, (f"convs.{number}.weight", f"norms.{number}.weight", f"norms.{number}.bias")
        self.bias, self.kernel_axes = f"convs.{number}.bias", params[self.names[0]].shape
        kernels, self.gamma, beta = (params[name] for name in self.names)
        self.weight = kernels.permute(0, 3, 4, 2, 1).flatten(1, 3)  # (T, 9 * C, filters)
        self.gamma, self.beta = self.gamma.unsqueeze(1), beta.unsqueeze(1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (T, B, H, W, C) -> (T, B, side, side, filters)."""
        tasks, batch, self.size, _, self.channels = x.shape
        conv_side = math.ceil(self.size / self.stride)
        self.patches = self.gathered(x, conv_side)
        # The convolution's bias would be taken out again by BatchNorm.
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
        """From the gradient of the output (T, B, side, side, filters) to that of the input, if wanted."""
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
        """The patches of maps (T, B, H, W, C), ``side`` in a row: (T, B * side * side, 9 * C)."""
        return _unfold(x, side, self.stride)

    def summed(self, d_patches: Tensor) -> Tensor:
        """The gradient of the maps from that of the patches."""
        tasks, batch, side, _, _ = self.active.shape
        taps = (KERNEL, KERNEL, self.channels)
        return _fold(d_patches.view(tasks, batch, side, side, *taps), self.size, self.stride)

    def statistics(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``y`` (T, rows, filters) without its mean over rows, and its variance."""
        centred = y - y.mean(1, keepdim=True)
        return centred, centred.square().mean(1, keepdim=True)

    def pooled(self) -> Tensor:
        """The largest of every 2 x 2 active pixels, what sticks out counted too."""
        tasks, batch = self.active.shape[:2]
        planes = self.active.flatten(0, 1).permute(0, 3, 1, 2)
        pooled, self.taken = F.max_pool2d(planes, 2, ceil_mode=True, return_indices=True)
        side = pooled.shape[-1]
        return pooled.permute(0, 2, 3, 1).reshape(tasks, batch, side, side, -1)

    def unpooled(self, d: Tensor) -> Tensor:
        """The gradient before pooling: each goes to the pixel that was the largest of its four."""
        planes = self.active.flatten(0, 1).permute(0, 3, 1, 2)
        spread: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            d.flatten(0, 1).permute(0, 3, 1, 2), planes, [2, 2], [2, 2], [0, 0], [1, 1], True, self.taken
        )
        return spread.permute(0, 2, 3, 1).reshape(self.active.shape)

    def of_weight(self, d: Tensor) -> Tensor:
        """The weight's gradient (T, 9 * C, filters) from that of the convolution's output (T, rows, filters)."""
        return torch.bmm(self.patches.transpose(1, 2), d)

    def of_bias(self, d_beta: Tensor) -> Tensor:
        """The gradient of the convolution's bias, which is none."""
        return torch.zeros_like(d_beta)


def forward(net: Conv4, params: Params, x: Tensor) -> Tensor:
    """(T, B, C, H, W) -> logits (T, B, way); ``params`` by name, each with a leading axis of T."""
    return _forward(net, params, x, Block)[0]


def loss_and_gradient(
    net: Conv4, params: Params, x: Tensor, y: Tensor, block: type[Block] = Block
) -> tuple[Tensor, Params]:
    """Each task's mean cross-entropy (T,), and its gradient.

    A convolution's bias gets a gradient of exactly 0: the BatchNorm behind it takes it out again.

    Args:
        net: the form of the networks.
        params: by name, each with a leading axis of T.
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
    """What the heads see, of one body for all tasks: (T, B, C, H, W) -> (T, B, features); ``params`` not stacked."""
    return _features(net, {name: p.unsqueeze(0) for name, p in params.items()}, x, Block)[0]


def _forward(net: Conv4, params: Params, x: Tensor, block: type[Block]) -> tuple[Tensor, Tensor, list[Block]]:
    features, blocks = _features(net, params, x, block)
    return heads(params, features).to(features.dtype), features, blocks


def _features(net: Conv4, params: Params, x: Tensor, block: type[Block]) -> tuple[Tensor, list[Block]]:
    """Channels first, as the head's weights count them; the blocks know the way back."""
    x = x.permute(0, 1, 3, 4, 2)
    blocks: list[Block] = []
    for number in range(BLOCKS):
        blocks.append(block(net.stride, number, params))
        x = blocks[-1].forward(x)
    return x.mean((2, 3)) if net.averaged else x.permute(0, 1, 4, 2, 3).flatten(2), blocks


def _maps_of(features: Tensor, side: int, averaged: bool) -> Tensor:
    """The gradient of the last maps (T, B, side, side, C) from that of the features (T, B, features)."""
    if averaged:
        return (features / side**2)[:, :, None, None, :].expand(-1, -1, side, side, -1)
    return features.reshape(*features.shape[:2], -1, side, side).permute(0, 1, 3, 4, 2)


def padded_size(side: int, stride: int) -> int:
    """Side of the padded maps: what the patches reach, rounded up to whole strides."""
    return stride * (side - 1) + KERNEL + (stride - 1)


def _unfold(x: Tensor, side: int, stride: int) -> Tensor:
    """Every 3x3 patch of 'SAME'-padded maps: (T, B, H, W, C) -> (T, B * side * side, 9 * C)."""
    tasks, batch, size, _, channels = x.shape
    padded, (before, _) = padded_size(side, stride), same_padding(size, stride)
    after = padded - size - before
    x = F.pad(x, (0, 0, before, after, before, after)).contiguous()
    # Where maps are differentiated, by an operation whose derivative is known to be the fold.
    patches = _unfold_padded(x, stride, side) if x.requires_grad else _patches(x, stride, side)
    return patches.reshape(tasks, batch * side * side, KERNEL * KERNEL * channels)


def _patches(x: Tensor, stride: int, side: int) -> Tensor:
    """A view of padded maps (T, B, size, size, C) as overlapping patches (T, B, side, side, 3, 3 * C)."""
    tasks, batch, padded, _, channels = x.shape
    row = padded * channels
    # The three pixels of a patch's row lie side by side in memory.
    shape = (tasks, batch, side, side, KERNEL, KERNEL * channels)
    return x.as_strided(shape, (batch * padded * row, padded * row, stride * row, stride * channels, row, 1))


@torch.library.custom_op("torchreptile::unfold", mutates_args=())
def _unfold_padded(x: Tensor, stride: int, side: int) -> Tensor:
    """Padded maps (T, B, size, size, C) -> patches (T, B, side, side, 3, 3, C): the transpose of the fold below."""
    patches = _patches(x.contiguous(), stride, side).clone(memory_format=torch.contiguous_format)
    return patches.view(*patches.shape[:-1], KERNEL, -1)


@_unfold_padded.register_fake
def _(x: Tensor, stride: int, side: int) -> Tensor:
    return x.new_empty(*x.shape[:2], side, side, KERNEL, KERNEL, x.shape[-1])


@torch.library.custom_op("torchreptile::fold", mutates_args=())
def _fold_padded(patches: Tensor, stride: int) -> Tensor:
    """The transpose of gathering patches: (T, B, side, side, 3, 3, C) -> padded maps (T, B, size, size, C).

    An operation of its own, so that the compiler leaves it alone: it would turn every addition into a pass
    over the whole map.
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


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """What a transpose must know: the stride, and how many patches there are in a row."""
    ctx.stride, ctx.side = inputs[1], inputs[0].shape[2]


# Each is the other's transpose, so they can be differentiated as often as one likes.
_fold_padded.register_autograd(lambda ctx, d: (_unfold_padded(d, ctx.stride, ctx.side), None), setup_context=_keep)
_unfold_padded.register_autograd(
    lambda ctx, d: (_fold_padded(d.contiguous(), ctx.stride), None, None), setup_context=_keep
)


def _fold(patches: Tensor, size: int, stride: int) -> Tensor:
    """The same without the padding: maps (T, B, size, size, C)."""
    before, _ = same_padding(size, stride)
    inside = slice(before, before + size)
    maps: Tensor = _fold_padded(patches, stride)
    return maps[:, :, inside, inside]
