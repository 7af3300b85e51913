"""How T copies of one network are computed: one after another, or side by side in one of several ways.

Every way gives the same numbers up to rounding. Which is fastest depends on the device, the size of the
maps and the network; :func:`choose_execution` goes by what was measured (docs/speed.md).
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from subprocess import SubprocessError

import torch
from torch import nn

from torchreptile.core.errors import ConfigError
from torchreptile.core.torch_compile import compiled, quietly
from torchreptile.models.blueprint import Shape
from torchreptile.models.conv4 import matmul as stacked_conv4
from torchreptile.models.conv4.fused import FusedConv4
from torchreptile.models.conv4.matmul_gpu import FusableBlock
from torchreptile.models.conv4.native import NativeConv4
from torchreptile.models.conv4.native_library import NativeUnavailableError, native_library
from torchreptile.models.conv4.network import Conv4
from torchreptile.models.embedding import Embedding
from torchreptile.models.execution.execution import TAPS_FIRST, Execution, StackedForward
from torchreptile.models.execution.generic import generic_execution, vmap_obstacle
from torchreptile.models.mlp import MLP

# Task-steps from which compiling repays: it takes from 10 seconds to a minute once per machine, and saves 1 to 3 ms
# per task-step of small maps on two cores, 10 ms of large ones.
COMPILE_FROM = 100_000
COMPILE_LARGE_FROM = 10_000
# The same on a GPU, where it takes 15 seconds for each of two or three sizes of mini-batch and saves 0.09 ms per
# task-step of small maps: repaid from half a million on. A published evaluation has as many, but 100 tasks at a time.
COMPILE_ON_GPU_FROM = 1_000_000


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
        return generic_execution(module, name, reason)
    if name in ("grouped", "matmul", "native"):
        kind = type(module).__name__
        if isinstance(module, MLP):
            raise ConfigError(f"execution {name} is for images; functions run with matmul, loop, vmap or compiled")
        raise ConfigError(f"execution {name} needs a built-in network; {kind} runs with loop, vmap or compiled")
    if name != "loop" and (obstacle := vmap_obstacle(module, image_shape, device)):
        raise ConfigError(f"execution {name}: {type(module).__name__} cannot be batched over tasks ({obstacle})")
    return generic_execution(module, name, "as asked")


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
    return replace(
        generic_execution(module, "loop", reason), name="compiled" if compiled else "shared", one_by_one=False
    )


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
            generic_execution(module, "loop", reason),
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
    return replace(generic_execution(module, name, reason), shared_features=features)


def _auto_for_own(module: nn.Module, image_shape: Shape, device: torch.device, task_steps: float) -> tuple[str, str]:
    if obstacle := vmap_obstacle(module, image_shape, device):
        return "loop", f"{type(module).__name__} cannot be batched over tasks: {obstacle}"
    if task_steps >= COMPILE_FROM and device.type == "cpu" and _compiler_works():
        return "compiled", "enough work to repay compiling"
    if device.type == "cpu" and any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return "loop", "batched convolutions are slow on a CPU unless compiled"
    return "vmap", "the network can be batched over tasks"


@cache
def _compiler_works(device: torch.device | None = None) -> bool:
    """Whether torch.compile works for a device, by default a CPU: asked by compiling next to nothing."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=device))
    except (RuntimeError, OSError, SubprocessError):  # no compiler, no Python headers, no Triton, no room for its files
        return False
    return True
