"""How an execution is chosen, for built-in networks and for custom networks."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.easy import TINY
from torchreptile.core.errors import ConfigError
from torchreptile.core.torch_compile import compiled, quietly
from torchreptile.models.conv4.native_library import NativeUnavailableError
from torchreptile.models.conv4.network import for_images, maml_for_images
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.compiler import COMPILE_FROM, COMPILE_LARGE_FROM, COMPILE_ON_GPU_FROM

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SMALL, LARGE = (1, 28, 28), (3, 84, 84)


class Dense(nn.Module):
    """A custom network without convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(TINY[1] * TINY[2], 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


class Convolutional(Dense):
    """One with a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(self.conv(x))


class LooksAtItsData(Dense):
    """One whose way depends on what it sees, which vmap cannot follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else x + 1)


@pytest.mark.parametrize("works", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_auto_for_built_in_networks(works: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without code of our own, or in bf16, which it does not compute in."""

    def none() -> None:
        raise NativeUnavailableError("none today")

    if precision == "fp32":
        monkeypatch.setattr("torchreptile.models.conv4.executions.native_library", none)
    monkeypatch.setattr("torchreptile.models.conv4.executions.compiler_works", lambda device=None: works)
    small, large = for_images(SMALL, 3), for_images(LARGE, 3)

    def auto(net: nn.Module, shape: tuple[int, int, int], device: torch.device, work: float = 0) -> str:
        return choose_execution("auto", net, shape, device, work, precision).name

    assert auto(small, SMALL, CPU, COMPILE_FROM - 1) == "grouped"
    assert auto(small, SMALL, CPU, COMPILE_FROM) == ("compiled" if works else "grouped")
    assert auto(large, LARGE, CPU, COMPILE_LARGE_FROM - 1) == "loop"
    assert auto(large, LARGE, CPU, COMPILE_LARGE_FROM) == ("compiled" if works else "loop")
    for net, shape in ((small, SMALL), (large, LARGE)):
        assert auto(net, shape, CUDA, COMPILE_ON_GPU_FROM - 1) == "matmul"
        assert auto(net, shape, CUDA, COMPILE_ON_GPU_FROM) == ("compiled" if works else "matmul")
    on_gpu = choose_execution("compiled", small, SMALL, CUDA)
    assert on_gpu.loss_and_gradient is not None
    assert not on_gpu.compiled  # not the optimiser, which is one kernel already
    asked = choose_execution("loop", small, SMALL, CPU, COMPILE_FROM)
    assert (asked.name, asked.reason) == ("loop", "as requested")


@pytest.mark.parametrize("shape", [SMALL, LARGE])
@pytest.mark.parametrize("work", [0, 1, COMPILE_FROM])
def test_auto_takes_native_code_however_little_there_is_to_do(
    shape: tuple[int, int, int], work: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was compiled before must not decide how sums are rounded."""
    monkeypatch.setattr("torchreptile.models.conv4.executions.native_library", lambda: None)
    monkeypatch.setattr("torchreptile.models.conv4.executions.NativeConv4", lambda net: StandIn())
    net = for_images(shape, 3)
    assert choose_execution("auto", net, shape, CPU, work).name == "native"
    assert choose_execution("auto", net, shape, CUDA, work).name == "matmul"


class StandIn:
    """For what need not be compiled to be chosen."""

    forward = loss_and_gradient = step = claim = None


def test_a_single_task_that_native_code_cannot_do_gains_nothing_from_groups() -> None:
    assert choose_execution("auto", maml_for_images(SMALL, 3), SMALL, CPU).name == "loop"


def test_native_computes_in_fp32_on_a_cpu() -> None:
    net = for_images(SMALL, 3)
    with pytest.raises(ConfigError, match="native runs on a CPU, and the device is cuda"):
        choose_execution("native", net, SMALL, CUDA)
    with pytest.raises(ConfigError, match="native computes in fp32, and precision is bf16"):
        choose_execution("native", net, SMALL, CPU, precision="bf16")


@pytest.mark.parametrize("works", [True, False])
def test_auto_for_networks_of_ones_own(works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchreptile.models.execution.choose.compiler_works", lambda device=None: works)
    assert choose_execution("auto", Dense(), TINY, CPU).name == "vmap"
    assert choose_execution("auto", Convolutional(), TINY, CPU).name == "loop"
    long = choose_execution("auto", Convolutional(), TINY, CPU, COMPILE_FROM)
    assert long.name == ("compiled" if works else "loop")


def test_what_cannot_be_batched_runs_one_by_one_and_says_why() -> None:
    chosen = choose_execution("auto", LooksAtItsData(), TINY, CPU, COMPILE_FROM)
    assert chosen.name == "loop"
    assert "LooksAtItsData cannot be batched over tasks: vmap" in chosen.reason
    assert "\n" not in chosen.reason


@pytest.mark.parametrize("name", ["vmap", "compiled"])
def test_asking_for_what_cannot_be_done_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"execution {name}: LooksAtItsData cannot be batched over tasks"):
        choose_execution(name, LooksAtItsData(), TINY, CPU)


@pytest.mark.parametrize("name", ["grouped", "matmul", "native"])
def test_the_built_in_networks_own_ways_are_theirs_alone(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} needs a built-in network; Dense runs with loop, vmap or compiled"):
        choose_execution(name, Dense(), TINY, CPU)


def test_every_size_is_compiled() -> None:
    """torch's own limit is eight, and from the ninth on it would go on uncompiled."""
    sizes: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., object]:
        sizes.append(len(inputs[0]))
        return graph.forward

    doubled = compiled(lambda x: 2 * x)
    with torch.compiler.set_stance(force_backend=backend):
        for size in range(2, 14):
            doubled(torch.ones(size))
    assert sizes == list(range(2, 14))


def test_hints_of_the_compiler_are_not_passed_on_and_warnings_are() -> None:
    def compiles(text: str) -> str:
        warnings.warn(text, stacklevel=1)
        return text

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for text in ("TensorFloat32 tensor cores are there", "\nOnline softmax is disabled on the fly", "it smokes"):
            assert quietly(compiles)(text) == text
    assert [str(warning.message) for warning in caught] == ["it smokes"]


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_compiled_without_a_compiler_is_refused(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchreptile.models.execution.compiler.compiler_works", lambda device=None: False)
    for net, its_shape in ((for_images(shape, 3), shape), (Dense(), TINY)):
        with pytest.raises(ConfigError, match="execution compiled is not possible here: no working C"):
            choose_execution("compiled", net, its_shape, CPU)
