"""Pooled Conv4 networks one at a time: torch's convolutions, and few passes over memory between them.

On large maps the convolutions run near the machine's limit, and BatchNorm, ReLU and pooling, each a pass over
megabytes, take more time than the arithmetic. Here the compiler fuses the operations between two convolutions, the
backward pass is explicit, and pooling records which of four pixels was the largest, so that the statistics of the
backward pass need a quarter of the pixels.

Maps are channels-last: (B, H, W, C).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.core.torch_compile import compiled
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.layers import BATCH_NORM_EPS, BLOCKS

NOWHERE = 4.0  # the place of a maximum that ReLU set to 0: none of 0, 1, 2, 3


@dataclass(frozen=True, eq=False)
class _Activation:
    """A block's output, and what its backward pass needs.

    Attributes:
        pooled: (B, h, w, C) the block's output.
        place: (B, h, w, C) which of the 2x2 pixels each maximum came from, 0 to 3, or NOWHERE.
        winner: (B, h, w, C) the convolution's output there.
        mean: (C,) of the convolution's output.
        scale: (C,) one over the standard deviation of the convolution's output.
    """

    pooled: Tensor
    place: Tensor
    winner: Tensor
    mean: Tensor
    scale: Tensor


Activate = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]
Backtrack = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class FusedConv4:
    """Losses and gradients of pooled Conv4 networks, computed one after another."""

    def __init__(self, compile_blocks: bool) -> None:
        """Prepare the passes between convolutions.

        Args:
            compile_blocks: through torch.compile; without it the results are equal up to rounding, and slow.
        """
        self._activate: Activate = activate
        self._backtrack: Backtrack = backtrack
        if compile_blocks:
            self._activate, self._backtrack = compiled(activate), compiled(backtrack)

    def loss_and_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """Return each task's mean cross-entropy (T,), and its gradient; under autocast, maps have its precision.

        A convolution's bias gets a gradient of exactly 0, because the BatchNorm after it subtracts it again.

        Args:
            params: a Conv4's parameters by name, (T, ...) each.
            x: (T, B, C, H, W) images.
            y: (T, B) labels.
        """
        device = x.device.type
        maps = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        with torch.autocast(device, enabled=False):
            done = [
                self._one({name: p[task] for name, p in params.items()}, x[task].to(maps), y[task])
                for task in range(len(x))
            ]
        losses, gradients = zip(*done, strict=True)
        return torch.stack(losses), {name: stacked([g[name] for g in gradients]) for name in params}

    def _one(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """Return the loss () and gradient of one network, for images (B, C, H, W) and labels (B,)."""
        inputs, outputs, blocks = [x.permute(0, 2, 3, 1)], [], []
        for number in range(BLOCKS):
            kernel = params[f"convs.{number}.weight"].to(x.dtype)
            outputs.append(_convolve(inputs[-1], kernel))
            gamma, beta = params[f"norms.{number}.weight"], params[f"norms.{number}.bias"]
            blocks.append(_Activation(*self._activate(outputs[-1], gamma, beta)))
            inputs.append(blocks[-1].pooled)
        loss, gradient, d = _head(params, inputs.pop(), y)
        for number in reversed(range(BLOCKS)):
            kernel, gamma = params[f"convs.{number}.weight"].to(x.dtype), params[f"norms.{number}.weight"]
            block = blocks[number]
            d, d_gamma, d_beta = self._backtrack(
                d, block.place, block.winner, block.mean, block.scale, outputs[number], gamma
            )
            d, d_kernel = _convolve_back(d, inputs[number], kernel, to_maps=number > 0)
            gradient[f"convs.{number}.weight"] = d_kernel.to(gamma.dtype)
            gradient[f"convs.{number}.bias"] = torch.zeros_like(gamma)
            gradient[f"norms.{number}.weight"], gradient[f"norms.{number}.bias"] = d_gamma, d_beta
        return loss, gradient


def activate(
    y: Tensor, gamma: Tensor, beta: Tensor, eps: float = BATCH_NORM_EPS, ceil: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Apply BatchNorm, ReLU and 2x2 max-pooling to a convolution's output.

    Args:
        y: (B, H, W, C) the convolution's output.
        gamma: (C,) BatchNorm's scale.
        beta: (C,) BatchNorm's shift.
        eps: BatchNorm's, added to the variance.
        ceil: whether pooling rounds odd sizes up rather than down.

    Returns:
        The pooled maps (B, h, w, C); which of its four pixels each maximum came from (B, h, w, C), 0 to 3, or 4 where
        ReLU made it 0; the convolution's output there (B, h, w, C); and the mean and inverse standard deviation (C,)
        of the convolution's output.
    """
    wide, rows = y.to(gamma.dtype), y.numel() // y.shape[-1]
    # Both moments in one pass. Relative to some pixel's value, a large mean costs the difference below no digits.
    origin = wide[0, 0, 0]
    offset = _total(wide - origin) / rows
    variance = (_total((wide - origin).square()) / rows - offset.square()).clamp_min(0)
    mean, scale = offset + origin, torch.rsqrt(variance + eps)
    slope = scale * gamma
    shift = beta - mean * slope
    if not ceil:
        wide = wide[:, : y.shape[1] // 2 * 2, : y.shape[2] // 2 * 2]
    quarters = [wide[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    best, winner = quarters[0] * slope + shift, quarters[0]
    place = torch.zeros_like(best)
    for number in (1, 2, 3):
        missing = (0, 0, 0, best.shape[2] - quarters[number].shape[2], 0, best.shape[1] - quarters[number].shape[1])
        value = F.pad(quarters[number] * slope + shift, missing, value=-math.inf)
        better = value > best  # the first of equals, as in PyTorch
        best = torch.where(better, value, best)
        place = torch.where(better, float(number), place)
        winner = torch.where(better, F.pad(quarters[number], missing), winner)
    place = torch.where(best > 0, place, NOWHERE)
    return F.relu(best).to(y.dtype), place.to(y.dtype), winner.to(y.dtype), mean, scale


def backtrack(
    d: Tensor, place: Tensor, winner: Tensor, mean: Tensor, scale: Tensor, y: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the backward pass of :func:`activate`.

    Args:
        d: (B, h, w, C) gradient of the pooled maps.
        place: (B, h, w, C) which of its four pixels each maximum came from.
        winner: (B, h, w, C) the convolution's output there.
        mean: (C,) of the convolution's output.
        scale: (C,) one over the standard deviation of the convolution's output.
        y: (B, H, W, C) the convolution's output.
        gamma: (C,) BatchNorm's scale.

    Returns:
        The gradients of ``y`` (B, H, W, C), gamma (C,) and beta (C,).
    """
    batch, height, width, channels = y.shape
    rows, (_, high, wide, _) = batch * height * width, d.shape
    d = torch.where(place < NOWHERE, d.to(gamma.dtype), 0.0)
    d_beta, d_gamma = _total(d), _total(d * ((winner.to(gamma.dtype) - mean) * scale))
    # scale * gamma * (d - d_beta / rows - (y - mean) * scale * d_gamma / rows), written as a linear function of y
    slope = scale * gamma
    tilt = -slope * scale * d_gamma / rows
    level = -slope * d_beta / rows - mean * tilt
    four = torch.arange(4, device=y.device).to(place.dtype).view(1, 1, 2, 1, 2, 1)
    cells = (batch, high, 1, wide, 1, channels)
    spread = torch.where(place.reshape(cells) == four, (d * slope).reshape(cells), 0.0)
    spread = spread.reshape(batch, 2 * high, 2 * wide, channels)[:, :height, :width]
    spread = F.pad(spread, (0, 0, 0, width - spread.shape[2], 0, height - spread.shape[1]))
    return (spread + y.to(gamma.dtype) * tilt + level).to(y.dtype), d_gamma, d_beta


def _total(maps: Tensor) -> Tensor:
    """Return the sum of every channel (C,), row by row, which suits the caches and keeps rounding errors small."""
    return maps.sum(2).sum((0, 1))


def _head(params: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Params, Tensor]:
    """Return the loss () of maps (B, h, w, C), the head's gradient, and the maps' gradient."""
    weight = params["head.weight"]
    batch, high, wide, channels = x.shape
    features = x.permute(0, 3, 1, 2).reshape(batch, -1).to(weight.dtype)  # channels first, as in the weights
    log_p = torch.addmm(params["head.bias"], features, weight.t()).log_softmax(1)
    loss = F.nll_loss(log_p, y)
    d = (log_p.exp() - F.one_hot(y, log_p.shape[1])) / batch
    maps = (d @ weight).view(batch, channels, high, wide).permute(0, 2, 3, 1).contiguous()
    return loss, {"head.weight": d.t() @ features, "head.bias": d.sum(0)}, maps.to(x.dtype)


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve 3x3 with stride 1, 'SAME' and no bias: (B, H, W, C) -> (B, H, W, filters)."""
    return F.conv2d(x.permute(0, 3, 1, 2), kernel, padding=1).permute(0, 2, 3, 1)


def _convolve_back(d: Tensor, x: Tensor, kernel: Tensor, to_maps: bool) -> tuple[Tensor, Tensor]:
    """Return the gradients of the maps ``x``, or a placeholder unless ``to_maps``, and of the kernel."""
    d_maps, d_kernel, _ = torch.ops.aten.convolution_backward(
        d.permute(0, 3, 1, 2), x.permute(0, 3, 1, 2), kernel,
        None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [to_maps, True, False],
    )  # fmt: skip
    return d_maps.permute(0, 2, 3, 1) if to_maps else d, d_kernel


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Stack tensors like torch.stack, without copying a single one."""
    return torch.stack(list(parts)) if len(parts) > 1 else parts[0].unsqueeze(0)
