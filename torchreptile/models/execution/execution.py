"""Executions: ways to compute T copies of one network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.models.built_in import Params
from torchreptile.models.conv4.native import Rule
from torchreptile.models.module_call import ModuleCall

StackedForward = Callable[[Params, Tensor], Tensor]
"""(parameters (T, ...) each, images (T, B, C, H, W) or points (T, B, inputs)) -> outputs (T, B, way or targets)."""

LossAndGradient = Callable[[Params, Tensor, Tensor], tuple[Tensor, Params]]
"""(parameters (T, ...) each, images (T, B, C, H, W), labels (T, B)) -> each task's mean loss (T,), and its gradient;
or points (T, B, inputs) and values (T, B, targets)."""

Step = Callable[[Params, Params, Tensor, Tensor, Rule], Tensor]
"""(parameters, second moment, images, labels, rule) -> each task's loss (T,) before the step, which changes the first
two in place."""

# The order of the axes of a kernel (O, I, h, w) in memory.
CHANNELS_LAST = (0, 2, 3, 1)  # fastest for convolutions
TAPS_FIRST = (2, 3, 1, 0)  # needs no copy for a matrix product with patches
CONTIGUOUS = (0, 1, 2, 3)  # for networks that need their maps contiguous (view)


@dataclass(frozen=True, eq=False)
class Execution:
    """A way to compute T copies of a network.

    Attributes:
        name: loop, grouped, matmul, vmap, compiled or native; or shared or sequence, if tasks share their weights.
        reason: why it was chosen, shown to the user.
        forward: computes the outputs of T copies.
        loss_and_gradient: computes their losses and gradients; None leaves it to autograd.
        differentiable_gradient: computes losses and gradients that are differentiable in the parameters, for second
            order; None leaves it to autograd.
        shared_features: computes the head's inputs (T, B, features) from images (T, B, C, H, W) with one body for all
            tasks, whose parameters are not stacked; None if the network has no separate head.
        step: takes complete inner steps, where that is faster than from a gradient.
        compiled: whether ``forward`` is to be compiled together with the operations around it.
        kernel_order: the order of the axes of stacked kernels in memory.
        draws: whether the network draws random numbers in training (Dropout).
        draws_predicting: whether it draws them in predictions too.
        independent_outputs: whether, in predictions, the output for an input is independent of the others of its batch.
        single: calls one copy of any ``nn.Module``; None for executions of the built-in networks' own.
        one_by_one: whether tasks gain nothing from being batched; one at a time saves memory and keeps caches warm.
        fuses_blocks: whether the operations between an embedding's convolutions are to be fused by the compiler.
        claim: the context in which steps and episodes run; it reserves the processors that torch's threads would use.
        library: key of the native library that computes; empty for other executions.
    """

    name: str
    reason: str
    forward: StackedForward
    loss_and_gradient: LossAndGradient | None = None
    differentiable_gradient: LossAndGradient | None = None
    shared_features: StackedForward | None = None
    step: Step | None = None
    compiled: bool = False
    kernel_order: tuple[int, ...] = CHANNELS_LAST
    draws: bool = False
    draws_predicting: bool = False
    independent_outputs: bool = False
    single: ModuleCall | None = None
    one_by_one: bool = False
    fuses_blocks: bool = False
    claim: Callable[[], AbstractContextManager[object]] = nullcontext
    library: str = ""


def stack(params: Params, tasks: int, kernel_order: tuple[int, ...] = CHANNELS_LAST) -> Params:
    """Return T independent copies of every tensor: (...) -> (T, ...).

    Args:
        params: by name.
        tasks: T.
        kernel_order: the order of the axes of 4-dimensional kernels in memory.

    Example:
        >>> import torch
        >>> tuple(stack({"weight": torch.zeros(3, 4)}, tasks=2)["weight"].shape)
        (2, 3, 4)
    """
    return {name: _copies(p, tasks, kernel_order) for name, p in params.items()}


def _copies(p: Tensor, tasks: int, kernel_order: tuple[int, ...]) -> Tensor:
    """Return T copies of one tensor, kernels with their axes in memory in ``kernel_order``."""
    if p.ndim != 4:
        return p.expand(tasks, *p.shape).clone(memory_format=torch.contiguous_format)
    reordered = p.permute(kernel_order).contiguous()  # reordered once, then copied T times
    copies = reordered.expand(tasks, *reordered.shape).clone(memory_format=torch.contiguous_format)
    back = sorted(range(4), key=kernel_order.__getitem__)
    return copies.permute(0, *(axis + 1 for axis in back))


def sum_over_tasks(p: Tensor) -> Tensor:
    """Return the sum over tasks: (T, ...) -> (...).

    It sums in memory order, because torch takes 30 times as long when the axes are permuted.
    """
    axes = sorted(range(1, p.ndim), key=p.stride, reverse=True)
    back = sorted(range(len(axes)), key=axes.__getitem__)
    return p.permute(0, *axes).sum(0).permute(back)
