"""The batched inner loop against torch.optim, one task at a time, on both of the paper's networks."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.easy import double_params, easy_store, skip_without_native, small_config
from tests.reference import MiniImageNetNet, OmniglotNet, ReferenceLearner
from torchreptile.algorithms.optim.inner_loop import InnerLoop, InnerState
from torchreptile.core.config import Config, InnerConfig
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.network import for_images
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.execution import stack, sum_over_tasks

TASKS, STEPS = 2, 3
Batches = list[tuple[torch.Tensor, torch.Tensor]]
NETWORKS = {"omniglot": (1, 28, 28), "mini-imagenet": (3, 64, 64)}


def drawn_batches(shape: tuple[int, int, int], dtype: torch.dtype = torch.float64) -> Batches:
    """STEPS mini-batches of 4 images for TASKS tasks: (T, 4, C, H, W), (T, 4)."""
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(STEPS, TASKS, 4, *shape, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(3, (STEPS, TASKS, 4), generator=generator)
    return list(zip(images, labels, strict=True))


def loop_for(module: nn.Module, settings: InnerConfig, execution: str) -> InnerLoop:
    skip_without_native(execution)
    return InnerLoop(settings, choose_execution(execution, module, (1, 28, 28), torch.device("cpu")))


def start(config: Config, params: Params) -> tuple[Params, InnerState]:
    fresh = InnerState.fresh(params, config.inner.inner_optimizer, config.training_batch)
    return stack(params, TASKS), replace(fresh, v=stack(fresh.v, TASKS))


@pytest.mark.parametrize("execution", ["loop", "grouped", "matmul", "vmap", "native"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("network", NETWORKS)
def test_logits_and_losses_equal_the_reference(network: str, optimizer: str, execution: str) -> None:
    shape = NETWORKS[network]
    config = small_config(inner_optimizer=optimizer, inner_lr=0.05 if optimizer == "sgd" else 1e-3)
    phi = double_params(config, shape)
    params, state = start(config, phi)
    module = for_images(shape, way=3)
    loop = loop_for(module, config.inner, execution)
    batches = drawn_batches(shape)
    losses = loop.run(params, state, batches)
    probe = torch.rand(TASKS, 3, *shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    logits = loop.forward(params, probe)
    assert int(state.steps) == STEPS
    tolerance = 1e-10 if optimizer == "sgd" else 1e-6
    for task in range(TASKS):
        net = (OmniglotNet(3) if network == "omniglot" else MiniImageNetNet(3, size=64)).double()
        net.load_state_dict(phi)
        reference = ReferenceLearner(net, optimizer, config.inner.inner_lr)
        expected = sum(reference._inner_step(x[task], y[task]) for x, y in batches) / STEPS
        assert float(losses[:, task].mean()) == pytest.approx(expected, abs=tolerance)
        with torch.no_grad():
            torch.testing.assert_close(logits[task], net(probe[task]), rtol=0, atol=tolerance)
        if optimizer == "sgd":
            for name, p in net.named_parameters():
                torch.testing.assert_close(params[name][task], p.detach(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("execution", ["loop", "grouped", "matmul", "vmap", "native"])
def test_a_carried_second_moment_goes_on_as_in_one_long_run(execution: str) -> None:
    """Two runs of the loop with the state handed over are one run of twice as many steps."""
    config = small_config()
    loop = loop_for(for_images((1, 28, 28), way=3), config.inner, execution)
    batches = drawn_batches((1, 28, 28))
    results = []
    for parts in ([batches], [batches[:1], batches[1:]]):
        params, state = start(config, double_params(config))
        for part in parts:
            loop.run(params, state, part)
        results.append((params, state))
    (params, state), (params_twice, state_twice) = results
    assert int(state.steps) == int(state_twice.steps) == STEPS
    for name in params:
        assert torch.equal(params[name], params_twice[name])
        assert torch.equal(state.v[name], state_twice.v[name])


def test_half_as_many_images_make_half_an_adam_step() -> None:
    """Going down the sum of losses, as the original: the mean's gradient is as large, the second moment is not."""
    config = small_config(inner_batch=8)
    params = double_params(config)
    fresh = InnerState.fresh(params, "adam", config.training_batch)
    # So large that a step does not change it.
    gathered = replace(fresh, v={name: torch.full_like(v, 1e6) for name, v in fresh.v.items()}, steps=fresh.steps + 1e5)
    loop, batch = loop_for(OmniglotNet(3).double(), config.inner, "loop"), drawn_batches((1, 28, 28))[0]
    moved: dict[int, Params] = {}
    for images in (4, 8):
        copies, state = loop.stacked(params, gathered, TASKS)
        before = {name: p.clone() for name, p in copies.items()}
        state = state.rescaled(images)
        loop.run(copies, state, [batch])
        moved[images] = {name: p - before[name] for name, p in copies.items()}
        back = state.rescaled(8)
        assert (state.images, back.images) == (images, 8)
        for name, v in back.v.items():
            torch.testing.assert_close(v, gathered.v[name].expand_as(v), rtol=1e-2, atol=0)
    assert moved[4]["head.weight"].any()
    for name, change in moved[4].items():
        torch.testing.assert_close(change, moved[8][name] / 2, rtol=1e-2, atol=1e-12)


def test_the_first_adam_step_of_a_fresh_state_is_the_sign_of_the_gradient() -> None:
    """beta1 = 0 and a fresh second moment: lr * g / |g|, whatever the size of the gradient."""
    params, state = {"w": torch.tensor([[1.0, 1.0]])}, InnerState({"w": torch.zeros(1, 2)}, torch.zeros(()).double(), 1)

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :2] * self.w

    loop = loop_for(Line(), InnerConfig(inner_lr=0.01), "loop")
    loop.run(params, state, [(torch.tensor([[[1.0, 1e-3]]]), torch.tensor([[0]]))])
    torch.testing.assert_close(params["w"], torch.tensor([[1.01, 0.99]]), rtol=0, atol=1e-6)


def test_tasks_do_not_touch_each_other() -> None:
    """Other images for task 1 leave task 0's weights as they were."""
    config = small_config(inner_optimizer="sgd", inner_lr=0.1)
    loop = loop_for(for_images((1, 28, 28), way=3), config.inner, "grouped")
    batches = drawn_batches((1, 28, 28))
    first, state = start(config, double_params(config))
    loop.run(first, state, batches)
    changed = [(torch.stack([x[0], 1 - x[1]]), y) for x, y in batches]
    second, state = start(config, double_params(config))
    loop.run(second, state, changed)
    for name in first:
        torch.testing.assert_close(second[name][0], first[name][0], rtol=0, atol=1e-12)
    assert not torch.allclose(second["head.weight"][1], first["head.weight"][1], atol=1e-4)


def test_stack_makes_independent_copies() -> None:
    params = double_params(small_config())
    stacked = stack(params, 3)
    for name, p in params.items():
        assert stacked[name].shape == (3, *p.shape)
        assert torch.equal(stacked[name][2], p)
        stacked[name][0].add_(1)
        assert torch.equal(stacked[name][1], p)
        assert torch.equal(params[name], p)


def test_sums_over_tasks_are_torchs() -> None:
    stacked = torch.rand(5, 3, 4, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for p in (stacked, stacked.permute(0, 4, 3, 1, 2), stacked[:, 0, 0, 0], stacked[:1].expand(4, 3, 4, 2, 6)):
        torch.testing.assert_close(sum_over_tasks(p), p.sum(0), rtol=0, atol=1e-14)


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler's own warnings are not this package's
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("optimizer", ["adam", *(["sgd"] if "TORCHREPTILE_SLOW" in os.environ else [])])
def test_compiled_gives_the_losses_of_grouped(optimizer: str, network: str) -> None:
    """Float32, a few steps; the compiler takes a minute of it, so SGD is tried where TORCHREPTILE_SLOW is set."""
    config = small_config(inner_optimizer=optimizer, inner_lr=0.01 if optimizer == "sgd" else 1e-3)
    phi = {name: p.float() for name, p in double_params(config, NETWORKS[network]).items()}
    batches = drawn_batches(NETWORKS[network], torch.float32)
    losses, moments = {}, {}
    for execution in ("grouped", "compiled"):
        params, state = start(config, phi)
        loop = loop_for(for_images(NETWORKS[network], way=3), config.inner, execution)
        losses[execution] = torch.stack([loop.run(params, state, [batch]) for batch in batches])
        assert int(state.steps) == STEPS
        moments[execution] = state.v
    torch.testing.assert_close(losses["compiled"], losses["grouped"], rtol=0, atol=1e-4)
    assert not torch.allclose(losses["grouped"][0], losses["grouped"][2], atol=1e-2)  # the steps did something
    for name in moments["grouped"]:  # changed in place; biases before BatchNorm have no gradient but noise
        if not name.startswith("convs") or name.endswith("weight"):
            expected = moments["grouped"][name]
            torch.testing.assert_close(moments["compiled"][name], expected, rtol=0.02, atol=float(expected.max()) / 100)


def test_easy_images_are_not_blank() -> None:
    """The data of these tests: every class's own pattern, in grey levels that differ."""
    images = easy_store(3, 4).images.double()
    assert float(images.std()) > 50
    assert float((images[:4].mean(0) - images[4:8].mean(0)).abs().mean()) > 30
