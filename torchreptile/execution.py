"""How T copies of one network are computed: one after another, or side by side in one of several ways.

Every way gives the same numbers up to rounding. Which is fastest depends on the device, the size of the
maps and the network; :func:`choose_execution` goes by what was measured (docs/speed.md).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from subprocess import SubprocessError

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchreptile.errors import ConfigError
from torchreptile.models import Shape, stacked_conv4
from torchreptile.models.compiling import compiled, quietly
from torchreptile.models.conv4 import Conv4, Params
from torchreptile.models.embedding import Embedding
from torchreptile.models.fusable_block import FusableBlock
from torchreptile.models.fused_conv4 import FusedConv4, stacked
from torchreptile.models.mlp import MLP
from torchreptile.models.native import NativeConv4, Rule
from torchreptile.models.native_library import NativeUnavailableError, native_library
from torchreptile.targets import mean_loss

StackedForward = Callable[[Params, Tensor], Tensor]
"""(parameters with a leading axis of T, (T, B, C, H, W) or (T, B, inputs)) -> outputs (T, B, way or targets)."""

LossAndGradient = Callable[[Params, Tensor, Tensor], tuple[Tensor, Params]]
"""(parameters, images (T, B, C, H, W), labels (T, B)) -> each task's mean loss (T,), and its gradient; or points and
values, as :mod:`torchreptile.targets` has them."""

Step = Callable[[Params, Params, Tensor, Tensor, Rule], Tensor]
"""(parameters, second moment, images, labels, how to move) -> each task's loss (T,), after changing the first two."""

# Task-steps from which compiling repays: it takes from 10 seconds to a minute once per machine, and saves 1 to 3 ms
# per task-step of small maps on two cores, 10 ms of large ones.
COMPILE_FROM = 100_000
COMPILE_LARGE_FROM = 10_000
# The same on a GPU, where it takes 15 seconds for each of two or three sizes of mini-batch and saves 0.09 ms per
# task-step of small maps: repaid from half a million on. A published evaluation has as many, but 100 tasks at a time.
COMPILE_ON_GPU_FROM = 1_000_000

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


def choose_execution(
    name: str,
    module: nn.Module,
    image_shape: Shape,
    device: torch.device,
    task_steps: float = 0,
    precision: str = "fp32",
    twice: bool = False,
) -> Execution:
    """The execution that ``name`` asks for; ``auto`` goes by device, map size, network and amount of work.

    Args:
        name: auto, loop, grouped, matmul, vmap, compiled or native.
        module: the network.
        image_shape: (C, H, W), or (inputs,) of points.
        device: where it will run.
        task_steps: how many inner steps of one task there are to do; 0 for a single task, at once.
        precision: fp32, tf32 or bf16.
        twice: gradients of inner steps are differentiated again.

    Raises:
        ConfigError: the module has no such form, or it cannot be had here.
    """
    if isinstance(module, Conv4):
        if name == "auto":
            name, reason = _auto_for_conv4(module, device, task_steps, precision, twice)
        else:
            reason = "as asked"
        if name == "native":
            return _native(module, reason, device, precision)
        return _conv4_execution(module, name, reason, device)
    if isinstance(module, MLP) and name in ("auto", "matmul"):
        reason = "as asked" if name == "matmul" else "layers so small are batched matrix products for all tasks at once"
        both = module.loss_and_gradient
        return Execution("matmul", reason, module.forward_stacked, loss_and_gradient=both, twice=both)
    if name == "auto":
        name, reason = _auto_for_own(module, image_shape, device, task_steps)
        return _own_execution(module, name, reason)
    if name in ("grouped", "matmul", "native"):
        kind = type(module).__name__
        if isinstance(module, MLP):
            raise ConfigError(f"execution {name} is for images; functions run with matmul, loop, vmap or compiled")
        raise ConfigError(f"execution {name} needs a built-in network; {kind} runs with loop, vmap or compiled")
    if name != "loop" and (obstacle := _vmap_obstacle(module, image_shape, device)):
        raise ConfigError(f"execution {name}: {type(module).__name__} cannot be batched over tasks ({obstacle})")
    return _own_execution(module, name, "as asked")


def shared_execution(name: str, module: nn.Module, device: torch.device, task_steps: float = 0) -> Execution:
    """For algorithms whose tasks share one set of weights: what is called ``name`` for copies makes no difference,
    but that ``compiled`` fuses the embedding's blocks on a CPU.

    Args:
        name: what was asked for.
        module: the network.
        device: where it will run.
        task_steps: how much there is to do.
    """
    reason = "tasks share the weights, so that their images are one batch"
    possible = isinstance(module, Embedding) and device.type == "cpu"
    wanted = name == "compiled" or (name == "auto" and task_steps >= COMPILE_LARGE_FROM)
    compiled = possible and wanted and _compiler_works()
    return replace(_own_execution(module, "loop", reason), name="compiled" if compiled else "shared", one_by_one=False)


def _auto_for_conv4(
    module: Conv4, device: torch.device, task_steps: float, precision: str, twice: bool
) -> tuple[str, str]:
    if twice and (device.type != "cpu" or module.stride == 2):
        return "matmul", "its gradient is written out, and so differentiated but once for second order"
    if device.type != "cpu":
        if task_steps >= COMPILE_ON_GPU_FROM and _compiler_works(device):
            return "compiled", "the fewest kernels on a GPU, and enough work to repay compiling"
        return "matmul", "batched matrix products need few kernels on a GPU"
    without = ""
    if precision != "bf16" and not (twice or module.averaged):
        # However little there is to do: whether the library was compiled before must not decide how sums are rounded.
        try:
            native_library()
            return "native", "C++ for the built-in networks"
        except NativeUnavailableError as error:
            without = f" (not native: {error})"
    name, reason = _auto_without_native(module, task_steps) if task_steps else ("loop", "a single task")
    return name, reason + without


def _auto_without_native(module: Conv4, task_steps: float) -> tuple[str, str]:
    if module.stride == 2:
        maps, enough, otherwise = "small", COMPILE_FROM, "grouped"
    else:
        maps, enough, otherwise = "large", COMPILE_LARGE_FROM, "loop"
    if task_steps < enough:
        return otherwise, f"{maps} maps, and too little work to repay compiling"
    if not _compiler_works():
        return otherwise, f"{maps} maps, and no working C++ compiler"
    return "compiled", f"{maps} maps, and enough work to repay compiling"


def _native(module: Conv4, reason: str, device: torch.device, precision: str) -> Execution:
    if device.type != "cpu":
        raise ConfigError(f"execution native runs on a CPU, and the device is {device}; matmul is the one for a GPU")
    if module.averaged:
        raise ConfigError("execution native has no head that sees averages, as MAML's network has; take auto")
    if precision == "bf16":
        raise ConfigError("execution native computes in fp32, and precision is bf16; take fp32 or execution compiled")
    try:
        net = NativeConv4(module)
    except NativeUnavailableError as error:
        raise ConfigError(f"execution native is not possible here: {error}; auto takes another") from error
    return Execution(
        "native",
        reason,
        forward=net.forward,
        loss_and_gradient=net.loss_and_gradient,
        shared_features=_shared_features(module, device),
        step=net.step,
        kernel_order=TAPS_FIRST,
        claim=net.claim,
    )


def _shared_features(module: Conv4, device: torch.device) -> StackedForward:
    """Large maps on a CPU by the library's convolutions, all others as matrix products."""
    if module.stride == 1 and device.type == "cpu":
        return module.shared_features
    return partial(stacked_conv4.shared_features, module)


def _conv4_execution(module: Conv4, name: str, reason: str, device: torch.device) -> Execution:
    features = _shared_features(module, device)
    if name == "grouped":
        return Execution(name, reason, module.forward_grouped, shared_features=features)
    if name == "compiled" and module.stride == 1 and device.type == "cpu" and not module.averaged:
        return replace(
            _own_execution(module, "loop", reason),
            shared_features=features,
            name=name,
            loss_and_gradient=FusedConv4(compiled=True).loss_and_gradient,
        )
    if name in ("matmul", "compiled"):
        gradient = partial(stacked_conv4.loss_and_gradient, module)
        by_products = Execution(
            name,
            reason,
            forward=partial(stacked_conv4.forward, module),
            loss_and_gradient=gradient,
            twice=gradient,
            shared_features=features,
            compiled=name == "compiled",
            kernel_order=TAPS_FIRST,
        )
        if name == "matmul" or device.type == "cpu":
            return by_products
        fusable = partial(gradient, block=FusableBlock)
        return replace(
            by_products,
            loss_and_gradient=quietly(compiled(fusable)),
            twice=quietly(compiled(gradient)),
            compiled=False,  # the optimiser is one kernel for all parameters already: the compiler makes one for each
        )
    return replace(_own_execution(module, name, reason), shared_features=features)


def _auto_for_own(module: nn.Module, image_shape: Shape, device: torch.device, task_steps: float) -> tuple[str, str]:
    if obstacle := _vmap_obstacle(module, image_shape, device):
        return "loop", f"{type(module).__name__} cannot be batched over tasks: {obstacle}"
    if task_steps >= COMPILE_FROM and device.type == "cpu" and _compiler_works():
        return "compiled", "enough work to repay compiling"
    if device.type == "cpu" and any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return "loop", "batched convolutions are slow on a CPU unless compiled"
    return "vmap", "the network can be batched over tasks"


def _own_execution(module: nn.Module, name: str, reason: str) -> Execution:
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
        twice = partial(_differentiable_singly, singly)
        return Execution(name, reason, one_by_one, gradient, twice, draws=draws, one_by_one=True)
    return Execution(name, reason, _vmapped(module), compiled=name == "compiled", draws=draws)


def _loss_and_gradient_singly(
    forward: Callable[[Params, Tensor], Tensor], params: Params, x: Tensor, y: Tensor
) -> tuple[Tensor, Params]:
    """By autograd, with each task's parameters leaves of their own: cheaper than through a stack of them."""
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
    """The same, as a function of the stack of parameters that can be differentiated again."""
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
    def one(params: Params, images: Tensor) -> Tensor:
        out: Tensor = functional_call(module, params, (images,))
        return out

    side_by_side = torch.vmap(one, randomness="different")

    def forward(params: Params, x: Tensor) -> Tensor:
        # Attention written out in matrix products: vmap takes its fused kernels apart, one task after another.
        with sdpa_kernel(SDPBackend.MATH):
            out: Tensor = side_by_side(params, x)
        return out

    return forward


def _vmap_obstacle(module: nn.Module, image_shape: Shape, device: torch.device) -> str:
    """Why ``module`` cannot be batched over tasks, found by trying; empty if it can."""
    params = {name: p.detach().to(device).expand(2, *p.shape).clone() for name, p in module.named_parameters()}
    x = torch.zeros(2, 2, *image_shape, device=device)
    try:
        torch.func.grad(lambda p: _vmapped(module)(p, x).sum())(params)
    except Exception as error:  # a network of one's own may fail in any way, and that is the answer
        return (str(error).splitlines() or [type(error).__name__])[0]
    return ""


@cache
def _compiler_works(device: torch.device | None = None) -> bool:
    """Whether torch.compile works for a device, by default a CPU: asked by compiling next to nothing."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=device))
    except (RuntimeError, OSError, SubprocessError):  # no compiler, no Python headers, no Triton, no room for its files
        return False
    return True
