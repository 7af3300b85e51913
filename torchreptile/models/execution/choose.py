"""The choice of an execution: which way of computing T copies of a network is fastest here.

All executions give the same numbers up to rounding. Which is fastest depends on the device, the size of the maps and
the network; the choice follows the measurements in docs/speed.md. The built-in networks offer their own executions
(:meth:`~torchreptile.models.built_in.BuiltInNetwork.execution`); any other module runs in a loop or is batched by vmap.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from torchreptile.core.errors import ConfigError
from torchreptile.models.behaviour import Behaviour, behaviour_of
from torchreptile.models.built_in import BuiltInNetwork, ExecutionRequest, Shape
from torchreptile.models.execution.compiler import COMPILE_FROM, COMPILE_LARGE_FROM, compiler_works, require_compiler
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.generic import GENERIC, generic_execution, needs_plain_kernels, vmap_obstacle

ANY_THREADS = ("native",)  # executions whose sums have one order, whatever the number of threads


def rounds_by_threads(name: str) -> bool:
    """Return whether the number of torch's threads decides, on a CPU, how the sums of an execution are rounded.

    Args:
        name: of the execution.

    Example:
        >>> rounds_by_threads("loop"), rounds_by_threads("native")
        (True, False)
    """
    return name not in ANY_THREADS


def choose_execution(
    name: str,
    module: nn.Module,
    image_shape: Shape,
    device: torch.device,
    task_steps: float = 0,
    precision: str = "fp32",
    second_order: bool = False,
) -> Execution:
    """Return the execution called ``name``; ``auto`` chooses by device, map size, network and amount of work.

    Args:
        name: auto, loop, grouped, matmul, vmap, compiled or native.
        module: the network; its own weights are never used.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        device: where it will run.
        task_steps: about how many inner steps of one task there are to do in all; 0 for a single task.
        precision: fp32, tf32 or bf16.
        second_order: whether gradients of inner steps are differentiated again.

    Raises:
        ConfigError: the network has no such execution, or it is not possible on this machine.

    Example:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 5))
        >>> choose_execution("auto", network, (1, 28, 28), torch.device("cpu")).name
        'vmap'
    """
    request = ExecutionRequest(name, image_shape, device, task_steps, precision, second_order)
    if isinstance(module, BuiltInNetwork) and (offered := module.execution(request)) is not None:
        return replace(offered, independent_outputs=module.independent_outputs)
    behaviour = behaviour_of(module, image_shape)
    if name == "auto":
        name, reason = _auto(module, request, behaviour)
        return _generic(module, name, reason, request, behaviour)
    kind = type(module).__name__
    if name not in GENERIC:
        raise ConfigError(f"execution {name} needs a built-in network; {kind} runs with loop, vmap or compiled")
    if name != "loop" and (obstacle := vmap_obstacle(module, image_shape, device, behaviour, second_order)):
        raise ConfigError(f"execution {name}: {kind} cannot be batched over tasks ({obstacle})")
    if name == "compiled":
        require_compiler(device)
    return _generic(module, name, "as requested", request, behaviour)


def _generic(module: nn.Module, name: str, reason: str, request: ExecutionRequest, behaviour: Behaviour) -> Execution:
    """Return an execution of any module, with kernels that can be differentiated as often as requested."""
    plain = (
        name == "loop"
        and request.second_order
        and needs_plain_kernels(module, request.image_shape, request.device, behaviour)
    )
    return generic_execution(module, name, reason, behaviour, plain)


def shared_execution(
    name: str, module: nn.Module, image_shape: Shape, device: torch.device, task_steps: float = 0
) -> Execution:
    """Return an execution for algorithms whose tasks share one set of weights.

    Ways to compute copies do not apply here; ``compiled`` alone has an effect: it fuses the embedding's blocks on a
    CPU.

    Args:
        name: the requested execution.
        module: the network.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        device: where it will run.
        task_steps: about how many inner steps of one task there are to do in all.

    Raises:
        ConfigError: ``compiled`` was requested, and there is no compiler.
    """
    reason = "tasks share the weights, so their images form one batch"
    plain = generic_execution(module, "loop", reason, behaviour_of(module, image_shape))
    possible = isinstance(module, BuiltInNetwork) and module.fusible_blocks and device.type == "cpu"
    if possible and name == "compiled":
        require_compiler(device)
    wanted = name == "compiled" or (name == "auto" and task_steps >= COMPILE_LARGE_FROM)
    fuses = possible and wanted and compiler_works()
    return replace(plain, name="compiled" if fuses else "shared", one_by_one=False, fuses_blocks=fuses)


def _auto(module: nn.Module, request: ExecutionRequest, behaviour: Behaviour) -> tuple[str, str]:
    """Return the name of the fastest execution of any module, and the reason for it."""
    if obstacle := vmap_obstacle(module, request.image_shape, request.device, behaviour, request.second_order):
        return "loop", f"{type(module).__name__} cannot be batched over tasks: {obstacle}"
    on_cpu = request.device.type == "cpu"
    if request.task_steps >= COMPILE_FROM and on_cpu and compiler_works():
        return "compiled", "enough work to make compiling pay off"
    if on_cpu and any(isinstance(part, nn.Conv2d) for part in module.modules()):
        return "loop", "batched convolutions are slow on a CPU unless compiled"
    return "vmap", "the network can be batched over tasks"
