"""An execution: a way to compute T copies of one network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.models.conv4.native import Rule
from torchreptile.models.conv4.network import Params

StackedForward = Callable[[Params, Tensor], Tensor]
"""(parameters with a leading axis of T, (T, B, C, H, W) or (T, B, inputs)) -> outputs (T, B, way or targets)."""

LossAndGradient = Callable[[Params, Tensor, Tensor], tuple[Tensor, Params]]
"""(parameters, images (T, B, C, H, W), labels (T, B)) -> each task's mean loss (T,), and its gradient; or points and
values, as :mod:`torchreptile.models.losses` has them."""

Step = Callable[[Params, Params, Tensor, Tensor, Rule], Tensor]
"""(parameters, second moment, images, labels, how to move) -> each task's loss (T,), after changing the first two."""

# The order in which the axes of a kernel (O, I, h, w) lie in memory.
CHANNELS_LAST = (0, 2, 3, 1)  # what convolutions like best
TAPS_FIRST = (2, 3, 1, 0)  # patches meet such kernels in a matrix product without a copy


@dataclass(frozen=True, eq=False)
class Execution:
    """A way to compute T copies of a network.

    Attributes:
        name: loop, grouped, matmul, vmap, compiled or native.
        reason: why it was chosen, for people.
        forward: what runs T copies.
        loss_and_gradient: their losses and gradients; None leaves it to autograd.
        twice: the same, itself to be differentiated in the parameters; None leaves it to autograd.
        shared_features: what the heads see of images (T, B, C, H, W), for one body, its parameters not stacked; None if
            the network does not tell its head from its body.
        step: whole inner steps, if it can do them faster than from a gradient.
        compiled: whether ``forward`` and what is done with it is for torch.compile to take as a whole.
        kernel_order: how stacked kernels should lie in memory for it.
        draws: the network draws random numbers (Dropout).
        claim: what whole steps and episodes are to be computed within: it takes the processors from torch's threads.
        one_by_one: tasks gain nothing from being together; taking them singly keeps memory small and caches warm.
    """

    name: str
    reason: str
    forward: StackedForward
    loss_and_gradient: LossAndGradient | None = None
    twice: LossAndGradient | None = None
    shared_features: StackedForward | None = None
    step: Step | None = None
    compiled: bool = False
    kernel_order: tuple[int, ...] = CHANNELS_LAST
    draws: bool = False
    one_by_one: bool = False
    claim: Callable[[], AbstractContextManager[object]] = nullcontext


def stack(params: Params, tasks: int, kernel_order: tuple[int, ...] = CHANNELS_LAST) -> Params:
    """T independent copies of every tensor: (...) -> (T, ...), kernels in memory as ``kernel_order`` says."""
    return {name: _copies(p, tasks, kernel_order) for name, p in params.items()}


def _copies(p: Tensor, tasks: int, kernel_order: tuple[int, ...]) -> Tensor:
    if p.ndim != 4:
        return p.expand(tasks, *p.shape).clone(memory_format=torch.contiguous_format)
    reordered = p.permute(kernel_order).contiguous()  # once, and then in order T times
    copies = reordered.expand(tasks, *reordered.shape).clone(memory_format=torch.contiguous_format)
    back = sorted(range(4), key=kernel_order.__getitem__)
    return copies.permute(0, *(axis + 1 for axis in back))


def sum_over_tasks(p: Tensor) -> Tensor:
    """(T, ...) -> (...): along memory, because torch takes 30 times as long where axes lie in another order."""
    axes = sorted(range(1, p.ndim), key=p.stride, reverse=True)
    back = sorted(range(len(axes)), key=axes.__getitem__)
    return p.permute(0, *axes).sum(0).permute(back)
