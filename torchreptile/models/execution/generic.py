"""Executions of any ``nn.Module``: one task after another, or batched over tasks by vmap."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchreptile.core.errors import first_line
from torchreptile.models.built_in import Params, Shape
from torchreptile.models.conv4.fused import stacked
from torchreptile.models.execution.execution import Execution, StackedForward
from torchreptile.models.losses import mean_loss

GENERIC = ("loop", "vmap", "compiled")
"""The executions of any ``nn.Module``."""


def generic_execution(module: nn.Module, name: str, reason: str) -> Execution:
    """Return an execution of T copies of any ``nn.Module``.

    Args:
        module: the network; its own weights are never used.
        name: loop (one copy after another), vmap, or compiled (vmap through torch.compile).
        reason: why it was chosen, shown to the user.

    Example:
        >>> import torch
        >>> execution = generic_execution(torch.nn.Linear(4, 3), "vmap", "as requested")
        >>> params = {"weight": torch.zeros(2, 3, 4), "bias": torch.ones(2, 3)}  # 2 tasks
        >>> tuple(execution.forward(params, torch.zeros(2, 5, 4)).shape)
        (2, 5, 3)
    """

    def singly(params: Params, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images
        out: Tensor = functional_call(module, params, (images,))
        return out

    draws = any(isinstance(part, nn.modules.dropout._DropoutNd) for part in module.modules())
    if name == "loop":

        def one_by_one(params: Params, x: Tensor) -> Tensor:
            copies = ({name: p[task] for name, p in params.items()} for task in range(len(x)))
            return torch.stack([singly(copy, images) for copy, images in zip(copies, x, strict=True)])

        gradient = partial(_loss_and_gradient_singly, singly)
        differentiable = partial(_differentiable_singly, singly)
        return Execution(name, reason, one_by_one, gradient, differentiable, draws=draws, one_by_one=True)
    return Execution(name, reason, _vmapped(module), compiled=name == "compiled", draws=draws)


def _loss_and_gradient_singly(
    forward: Callable[[Params, Tensor], Tensor], params: Params, x: Tensor, y: Tensor
) -> tuple[Tensor, Params]:
    """Return each task's mean loss (T,) and its gradient by autograd, one task after another.

    Each task's parameters are separate leaves, which is cheaper than differentiating through their stack.
    """
    losses, gradients = [], []
    for task in range(len(x)):
        leaves = {name: p[task].detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            logits = forward(leaves, x[task])
            loss = mean_loss(logits.to(next(iter(leaves.values())).dtype), y[task])
        gradients.append(torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True))
        losses.append(loss.detach())
    return torch.stack(losses), dict(zip(params, map(stacked, zip(*gradients, strict=True)), strict=True))


def _differentiable_singly(
    forward: Callable[[Params, Tensor], Tensor], params: Params, x: Tensor, y: Tensor
) -> tuple[Tensor, Params]:
    """Return each task's mean loss (T,) and its gradient, both differentiable in the stacked parameters."""
    losses, gradients = [], []
    copies = [
        dict(zip(params, parts, strict=True)) for parts in zip(*(p.unbind(0) for p in params.values()), strict=True)
    ]
    for task, copy in enumerate(copies):
        logits = forward(copy, x[task])
        losses.append(mean_loss(logits.to(next(iter(copy.values())).dtype), y[task]))
        inputs = list(copy.values())
        gradients.append(torch.autograd.grad(losses[-1], inputs, create_graph=True, materialize_grads=True))
    return torch.stack(losses), dict(zip(params, map(stacked, zip(*gradients, strict=True)), strict=True))


def _vmapped(module: nn.Module) -> StackedForward:
    """Return the forward pass of T copies of ``module``, batched by vmap."""

    def one(params: Params, images: Tensor) -> Tensor:
        out: Tensor = functional_call(module, params, (images,))
        return out

    batched = torch.vmap(one, randomness="different")

    def forward(params: Params, x: Tensor) -> Tensor:
        # Attention as plain matrix products: vmap would run its fused kernels one task after another.
        with sdpa_kernel(SDPBackend.MATH):
            out: Tensor = batched(params, x)
        return out

    return forward


def vmap_obstacle(module: nn.Module, image_shape: Shape, device: torch.device) -> str:
    """Return why ``module`` cannot be batched over tasks, found by trying; empty if it can.

    Args:
        module: the network.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        device: where to try.
    """
    params = {name: p.detach().to(device).expand(2, *p.shape).clone() for name, p in module.named_parameters()}
    x = torch.zeros(2, 2, *image_shape, device=device)
    try:
        torch.func.grad(lambda p: _vmapped(module)(p, x).sum())(params)
    except Exception as error:  # a custom network may raise anything, and that is the answer
        return first_line(error)
    return ""
