"""The executions of Conv4, and the choice among them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from torchreptile.core.errors import ConfigError
from torchreptile.core.torch_compile import compiled, quietly
from torchreptile.models.built_in import ExecutionRequest
from torchreptile.models.conv4 import matmul
from torchreptile.models.conv4.fused import FusedConv4
from torchreptile.models.conv4.matmul_gpu import FusableBlock
from torchreptile.models.conv4.native import NativeConv4
from torchreptile.models.conv4.native_compiler import NativeUnavailableError
from torchreptile.models.conv4.native_library import native_library, native_library_key
from torchreptile.models.execution.compiler import (
    COMPILE_FROM,
    COMPILE_LARGE_FROM,
    COMPILE_ON_GPU_FROM,
    compiler_works,
    require_compiler,
)
from torchreptile.models.execution.execution import TAPS_FIRST, Execution, StackedForward
from torchreptile.models.execution.generic import generic_execution

if TYPE_CHECKING:
    from torchreptile.models.conv4.network import Conv4


def conv4_execution(net: Conv4, request: ExecutionRequest) -> Execution:
    """Return the execution of ``net`` that ``request`` names; ``auto`` follows the measurements in docs/speed.md.

    Args:
        net: the architecture; its own weights are never used.
        request: the requested execution, and what it is for.

    Raises:
        ConfigError: the native execution was requested and is not possible.
    """
    name, reason = _auto(net, request) if request.name == "auto" else (request.name, "as requested")
    if name == "native":
        return _native(net, reason, request)
    if name == "grouped":
        features = _shared_features(net, request.device)
        return Execution(name, reason, net.forward_grouped, shared_features=features)
    if name in ("matmul", "compiled"):
        return _matmul(net, reason, request.device) if name == "matmul" else _compiled(net, reason, request.device)
    return replace(generic_execution(net, name, reason), shared_features=_shared_features(net, request.device))


def _auto(net: Conv4, request: ExecutionRequest) -> tuple[str, str]:
    """Return the name of the fastest execution, and the reason for it."""
    if request.second_order and (request.device.type != "cpu" or net.stride == 2):
        return "matmul", "its gradient is explicit, so second order differentiates only once"
    if request.device.type != "cpu":
        if request.task_steps >= COMPILE_ON_GPU_FROM and compiler_works(request.device):
            return "compiled", "the fewest kernels on a GPU, and enough work to make compiling pay off"
        return "matmul", "batched matrix products need few kernels on a GPU"
    without = ""
    if request.precision != "bf16" and not (request.second_order or net.averaged):
        # However little work there is: rounding must not depend on whether the library was already compiled.
        try:
            native_library()
            return "native", "C++ code for the built-in networks"
        except NativeUnavailableError as error:
            without = f" (not native: {error})"
    name, reason = _auto_without_native(net, request.task_steps) if request.task_steps else ("loop", "a single task")
    return name, reason + without


def _auto_without_native(net: Conv4, task_steps: float) -> tuple[str, str]:
    """Return the name of the fastest execution on a CPU without the C++ library, and the reason for it."""
    if net.stride == 2:
        maps, enough, otherwise = "small", COMPILE_FROM, "grouped"
    else:
        maps, enough, otherwise = "large", COMPILE_LARGE_FROM, "loop"
    if task_steps < enough:
        return otherwise, f"{maps} maps, and too little work to make compiling pay off"
    if not compiler_works():
        return otherwise, f"{maps} maps, and no working C++ compiler"
    return "compiled", f"{maps} maps, and enough work to make compiling pay off"


def _native(net: Conv4, reason: str, request: ExecutionRequest) -> Execution:
    """Return the execution in C++."""
    if request.device.type != "cpu":
        raise ConfigError(
            f"execution native runs on a CPU, and the device is {request.device}; use matmul or auto on a GPU"
        )
    if net.averaged:
        raise ConfigError("execution native does not support MAML's averaged head; use auto")
    if request.precision == "bf16":
        raise ConfigError("execution native computes in fp32, and precision is bf16; use fp32 or execution compiled")
    try:
        native, key = NativeConv4(net), native_library_key()
    except NativeUnavailableError as error:
        raise ConfigError(f"execution native is not possible here: {error}; auto chooses another") from error
    return Execution(
        "native",
        reason,
        forward=native.forward,
        loss_and_gradient=native.loss_and_gradient,
        shared_features=_shared_features(net, request.device),
        step=native.step,
        kernel_order=TAPS_FIRST,
        claim=native.claim,
        library=key,
    )


def _matmul(net: Conv4, reason: str, device: torch.device) -> Execution:
    """Return the execution as batched matrix products."""
    gradient = partial(matmul.loss_and_gradient, net)
    return Execution(
        "matmul",
        reason,
        forward=partial(matmul.forward, net),
        loss_and_gradient=gradient,
        differentiable_gradient=gradient,
        shared_features=_shared_features(net, device),
        kernel_order=TAPS_FIRST,
    )


def _compiled(net: Conv4, reason: str, device: torch.device) -> Execution:
    """Return the compiled execution: convolutions one by one for large maps on a CPU, else matrix products."""
    require_compiler(device)
    if net.stride == 1 and device.type == "cpu" and not net.averaged:
        return replace(
            generic_execution(net, "loop", reason),
            shared_features=_shared_features(net, device),
            name="compiled",
            loss_and_gradient=FusedConv4(compile_blocks=True).loss_and_gradient,
        )
    products = replace(_matmul(net, reason, device), name="compiled")
    if device.type == "cpu":
        return replace(products, compiled=True)
    # Not the optimiser: it already is one kernel for all parameters, and would be one for each if compiled.
    return replace(
        products,
        loss_and_gradient=quietly(compiled(partial(matmul.loss_and_gradient, net, block=FusableBlock))),
        differentiable_gradient=quietly(compiled(partial(matmul.loss_and_gradient, net))),
    )


def _shared_features(net: Conv4, device: torch.device) -> StackedForward:
    """Return how the head's inputs are computed: by torch's convolutions on a CPU for large maps, else as products."""
    if net.stride == 1 and device.type == "cpu":
        return net.shared_features
    return partial(matmul.shared_features, net)
