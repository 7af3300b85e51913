"""Executions of any ``nn.Module``: one task after another, or batched over tasks by vmap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchreptile.core.errors import first_line
from torchreptile.core.random_state import seeded
from torchreptile.models.behaviour import Behaviour
from torchreptile.models.built_in import Params, Shape
from torchreptile.models.conv4.fused import stacked
from torchreptile.models.execution.execution import CHANNELS_LAST, CONTIGUOUS, Execution, StackedForward, stack
from torchreptile.models.losses import mean_loss
from torchreptile.models.module_call import ModuleCall, params_of

GENERIC = ("loop", "vmap", "compiled")
"""The executions of any ``nn.Module``."""

TOLERANCE = 1e-3  # of vmap's outputs compared with the loop's, relative to the largest


def generic_execution(
    module: nn.Module, name: str, reason: str, behaviour: Behaviour | None = None, plain_kernels: bool = False
) -> Execution:
    """Return an execution of T copies of any ``nn.Module``.

    Args:
        module: the network; its own weights are never used.
        name: loop (one copy after another), vmap, or compiled (vmap through torch.compile).
        reason: why it was chosen, shown to the user.
        behaviour: how the network behaves; by default as most do.
        plain_kernels: differentiate gradients again without the fused kernels that have no second derivative.

    Example:
        >>> import torch
        >>> execution = generic_execution(torch.nn.Linear(4, 3), "vmap", "as requested")
        >>> params = {"weight": torch.zeros(2, 3, 4), "bias": torch.ones(2, 3)}  # 2 tasks
        >>> tuple(execution.forward(params, torch.zeros(2, 5, 4)).shape)
        (2, 5, 3)
    """
    behaviour = behaviour or Behaviour()
    singly = single_call(module, behaviour)

    def one_by_one(params: Params, x: Tensor) -> Tensor:
        copies = ({name: p[task] for name, p in params.items()} for task in range(len(x)))
        return torch.stack([singly(copy, images) for copy, images in zip(copies, x, strict=True)])

    looped = name == "loop"
    return Execution(
        name,
        reason,
        one_by_one if looped else _vmapped(module, behaviour),
        partial(_loss_and_gradient_singly, singly) if looped else None,
        partial(_differentiable_singly, singly, _plain_kernels if plain_kernels else nullcontext) if looped else None,
        compiled=name == "compiled",
        kernel_order=_kernel_order(behaviour),
        draws=behaviour.draws,
        draws_predicting=behaviour.draws_predicting,
        independent_outputs=behaviour.independent_outputs,
        single=singly,
        one_by_one=looped,
    )


def single_call(module: nn.Module, behaviour: Behaviour) -> ModuleCall:
    """Return a call of one copy of ``module``, with its images in the order that it takes."""
    return ModuleCall(module, behaviour.channels_last, behaviour.changes_input)


def _kernel_order(behaviour: Behaviour) -> tuple[int, ...]:
    """Return the order of the axes of stacked kernels in memory."""
    return CHANNELS_LAST if behaviour.channels_last else CONTIGUOUS


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
    forward: Callable[[Params, Tensor], Tensor],
    kernels: Callable[[], AbstractContextManager[None]],
    params: Params,
    x: Tensor,
    y: Tensor,
) -> tuple[Tensor, Params]:
    """Return each task's mean loss (T,) and its gradient, both differentiable in the stacked parameters."""
    losses, gradients = [], []
    copies = [
        dict(zip(params, parts, strict=True)) for parts in zip(*(p.unbind(0) for p in params.values()), strict=True)
    ]
    with kernels():
        for task, copy in enumerate(copies):
            logits = forward(copy, x[task])
            losses.append(mean_loss(logits.to(next(iter(copy.values())).dtype), y[task]))
            inputs = list(copy.values())
            gradients.append(torch.autograd.grad(losses[-1], inputs, create_graph=True, materialize_grads=True))
    return torch.stack(losses), dict(zip(params, map(stacked, zip(*gradients, strict=True)), strict=True))


def _vmapped(module: nn.Module, behaviour: Behaviour) -> StackedForward:
    """Return the forward pass of T copies of ``module``, batched by vmap."""
    one = ModuleCall(module, channels_last=False, changes_input=behaviour.changes_input)
    batched = torch.vmap(one, randomness="different")

    def forward(params: Params, x: Tensor) -> Tensor:
        # Attention as plain matrix products: vmap would run its fused kernels one task after another.
        with sdpa_kernel(SDPBackend.MATH):
            out: Tensor = batched(params, x)
        return out

    return forward


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Compute attention and recurrent layers by plain operations, which can be differentiated twice."""
    with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
        if not torch.cuda.is_available():
            yield
            return
        with torch.backends.cudnn.flags(enabled=False):
            yield


def vmap_obstacle(
    module: nn.Module,
    image_shape: Shape,
    device: torch.device,
    behaviour: Behaviour | None = None,
    second_order: bool = False,
) -> str:
    """Return why ``module`` cannot be batched over tasks, found by trying; empty if it can.

    Args:
        module: the network.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        device: where to try.
        behaviour: how the network behaves; by default as most do.
        second_order: whether its gradients are differentiated again.
    """
    behaviour = behaviour or Behaviour()
    if behaviour.draws_outside:
        return "it draws from Python's or NumPy's generator, once for all tasks"
    own = {name: p.to(device) for name, p in params_of(module).items()}
    params = stack(own, 2, _kernel_order(behaviour))
    x = torch.rand(2, 2, *image_shape, generator=torch.Generator().manual_seed(0)).to(device)
    forward = _vmapped(module, behaviour)
    try:
        with seeded(0, device):
            torch.func.grad(lambda p: forward(p, x).sum())(params)
            if second_order:
                _twice(partial(_summed, forward), params, x)
            if behaviour.draws:
                return ""
            batched, looped = forward(params, x), single_call(module, behaviour)(own, x[1])
    except Exception as error:  # a custom network may raise anything, and that is the answer
        return first_line(error)
    largest = float(looped.detach().nan_to_num(0, 0, 0).abs().max())  # overflow is reported elsewhere
    if not torch.allclose(batched[1], looped, rtol=0, atol=TOLERANCE * largest, equal_nan=True):
        return "its outputs are others then"
    return ""


def needs_plain_kernels(module: nn.Module, image_shape: Shape, device: torch.device, behaviour: Behaviour) -> bool:
    """Return whether gradients of ``module`` can be differentiated again without fused kernels alone.

    Args:
        module: the network.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        device: where to try.
        behaviour: how the network behaves.
    """
    params = stack({name: p.to(device) for name, p in params_of(module).items()}, 1, _kernel_order(behaviour))
    x = torch.rand(1, 2, *image_shape, generator=torch.Generator().manual_seed(0)).to(device)

    def works(kernels: Callable[[], AbstractContextManager[None]]) -> bool:
        def gradient(p: Params, images: Tensor) -> Params:
            labels = torch.zeros(1, 2, dtype=torch.int64, device=device)
            return _differentiable_singly(single_call(module, behaviour), kernels, p, images, labels)[1]

        try:
            with seeded(0, device):
                _twice(gradient, params, x)
        except Exception:  # such as a kernel without a second derivative
            return False
        return True

    return not works(nullcontext) and works(_plain_kernels)


def _summed(forward: StackedForward, params: Params, x: Tensor) -> Params:
    """Return the gradient of the sum of the squared outputs, differentiable in ``params``."""
    leaves = list(params.values())
    total = forward(params, x).square().sum()
    return dict(zip(params, torch.autograd.grad(total, leaves, create_graph=True, materialize_grads=True), strict=True))


def _twice(gradient: Callable[[Params, Tensor], Params], params: Params, x: Tensor) -> None:
    """Differentiate a gradient once more."""
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    with torch.enable_grad():
        total = torch.stack([g.sum() for g in gradient(leaves, x).values()]).sum()
    if total.requires_grad:
        torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
