"""The choice of an execution: which way of computing T copies of a network is fastest here.

All executions give the same numbers up to rounding. Which is fastest depends on the device, the size of the maps and
the network; :func:`choose_execution` follows the measurements in docs/speed.md.
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
from torchreptile.models.conv4 import matmul
from torchreptile.models.conv4.fused import FusedConv4
from torchreptile.models.conv4.matmul_gpu import FusableBlock
from torchreptile.models.conv4.native import NativeConv4
from torchreptile.models.conv4.native_library import NativeUnavailableError, native_library
from torchreptile.models.conv4.network import Conv4
from torchreptile.models.embedding import Embedding
from torchreptile.models.execution.execution import TAPS_FIRST, Execution, StackedForward
from torchreptile.models.execution.generic import generic_execution, vmap_obstacle
from torchreptile.models.mlp import MLP

# Task-steps from which compiling pays off on a CPU: it takes from 10 seconds to a minute once per machine, and saves
# 1 to 3 ms per task-step of small maps on two cores, 10 ms of large maps.
COMPILE_FROM = 100_000
COMPILE_LARGE_FROM = 10_000
# Task-steps from which compiling pays off on a GPU: it takes 15 seconds for each of two or three sizes of mini-batch
# and saves 0.09 ms per task-step of small maps, so it breaks even at half a million. A published evaluation has as
# many, but 100 tasks at a time.
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
    """Return the execution called ``name``; ``auto`` chooses by device, map size, network and amount of work.

    Args:
        name: auto, loop, grouped, matmul, vmap, compiled or native.
        module: the network; its own weights are never used.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        device: where it will run.
        task_steps: about how many inner steps of one task there are to do in all; 0 for a single task.
        precision: fp32, tf32 or bf16.
        twice: whether gradients of inner steps are differentiated again (second order).

    Raises:
        ConfigError: the network has no such execution, or it is not possible on this machine.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 5))
        >>> choose_execution("auto", network, (1, 28, 28), torch.device("cpu")).name
        'vmap'
    """
    if isinstance(module, Conv4):
        if name == "auto":
            name, reason = _auto_for_conv4(module, device, task_steps, precision, twice)
        else:
            reason = "as requested"
        if name == "native":
            return _native(module, reason, device, precision)
        return _conv4_execution(module, name, reason, device)
    if isinstance(module, MLP) and name in ("auto", "matmul"):
        reason = "as requested" if name == "matmul" else "small layers run as batched matrix products over all tasks"
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
    return generic_execution(module, name, "as requested")


def shared_execution(name: str, module: nn.Module, device: torch.device, task_steps: float = 0) -> Execution:
    """Return an execution for algorithms whose tasks share one set of weights.

    Ways to compute copies do not apply here; ``compiled`` alone has an effect: it fuses the embedding's blocks on a
    CPU.

    Args:
        name: the requested execution.
        module: the network.
        device: where it will run.
        task_steps: about how many inner steps of one task there are to do in all.
    """
    reason = "tasks share the weights, so their images form one batch"
    possible = isinstance(module, Embedding) and device.type == "cpu"
    wanted = name == "compiled" or (name == "auto" and task_steps >= COMPILE_LARGE_FROM)
    compiles = possible and wanted and _compiler_works()
    return replace(
        generic_execution(module, "loop", reason), name="compiled" if compiles else "shared", one_by_one=False
    )


def _auto_for_conv4(
    module: Conv4, device: torch.device, task_steps: float, precision: str, twice: bool
) -> tuple[str, str]:
    if twice and (device.type != "cpu" or module.stride == 2):
        return "matmul", "its gradient is explicit, so second order differentiates only once"
    if device.type != "cpu":
        if task_steps >= COMPILE_ON_GPU_FROM and _compiler_works(device):
            return "compiled", "the fewest kernels on a GPU, and enough work to make compiling pay off"
        return "matmul", "batched matrix products need few kernels on a GPU"
    without = ""
    if precision != "bf16" and not (twice or module.averaged):
        # However little work there is: rounding must not depend on whether the library was already compiled.
        try:
            native_library()
            return "native", "C++ code for the built-in networks"
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
        return otherwise, f"{maps} maps, and too little work to make compiling pay off"
    if not _compiler_works():
        return otherwise, f"{maps} maps, and no working C++ compiler"
    return "compiled", f"{maps} maps, and enough work to make compiling pay off"


def _native(module: Conv4, reason: str, device: torch.device, precision: str) -> Execution:
    if device.type != "cpu":
        raise ConfigError(f"execution native runs on a CPU, and the device is {device}; use matmul or auto on a GPU")
    if module.averaged:
        raise ConfigError("execution native does not support MAML's averaged head; use auto")
    if precision == "bf16":
        raise ConfigError("execution native computes in fp32, and precision is bf16; use fp32 or execution compiled")
    try:
        net = NativeConv4(module)
    except NativeUnavailableError as error:
        raise ConfigError(f"execution native is not possible here: {error}; auto chooses another") from error
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
    """Return how the head's inputs are computed: by torch's convolutions on a CPU for large maps, else as products."""
    if module.stride == 1 and device.type == "cpu":
        return module.shared_features
    return partial(matmul.shared_features, module)


def _conv4_execution(module: Conv4, name: str, reason: str, device: torch.device) -> Execution:
    features = _shared_features(module, device)
    if name == "grouped":
        return Execution(name, reason, module.forward_grouped, shared_features=features)
    if name == "compiled" and module.stride == 1 and device.type == "cpu" and not module.averaged:
        return replace(
            generic_execution(module, "loop", reason),
            shared_features=features,
            name=name,
            loss_and_gradient=FusedConv4(compile_blocks=True).loss_and_gradient,
        )
    if name in ("matmul", "compiled"):
        gradient = partial(matmul.loss_and_gradient, module)
        by_products = Execution(
            name,
            reason,
            forward=partial(matmul.forward, module),
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
            compiled=False,  # the optimiser already is one kernel for all parameters; compiled it would be one for each
        )
    return replace(generic_execution(module, name, reason), shared_features=features)


def _auto_for_own(module: nn.Module, image_shape: Shape, device: torch.device, task_steps: float) -> tuple[str, str]:
    if obstacle := vmap_obstacle(module, image_shape, device):
        return "loop", f"{type(module).__name__} cannot be batched over tasks: {obstacle}"
    if task_steps >= COMPILE_FROM and device.type == "cpu" and _compiler_works():
        return "compiled", "enough work to make compiling pay off"
    if device.type == "cpu" and any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return "loop", "batched convolutions are slow on a CPU unless compiled"
    return "vmap", "the network can be batched over tasks"


@cache
def _compiler_works(device: torch.device | None = None) -> bool:
    """Whether torch.compile works on ``device``, by default a CPU, found by compiling a trivial function."""
    try:
        torch.compile(torch.neg)(torch.ones(1, device=device))
    except (RuntimeError, OSError, SubprocessError):  # no compiler, Python headers, Triton or disk space
        return False
    return True
