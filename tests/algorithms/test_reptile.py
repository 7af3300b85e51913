"""Outer steps of Reptile, batched over tasks, against the one-task-at-a-time reference with torch.optim."""

from __future__ import annotations

import pytest
import torch

from tests.easy import double_params, easy_store, skip_without_native, small_config
from tests.sidebyside import run_both
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.optim.outer_optimizer import OuterState, outer_update
from torchreptile.core.config import Config
from torchreptile.models.conv4.network import for_images


@pytest.mark.parametrize("execution", ["loop", "grouped", "native"])
@pytest.mark.parametrize("replacement", [False, True])
def test_sgd_gives_the_reference_weights(execution: str, replacement: bool) -> None:
    skip_without_native(execution)
    # 12 images in batches of 5: the third batch crosses the border of a pass.
    config = small_config(inner_optimizer="sgd", inner_lr=0.1, execution=execution, replacement=replacement)
    both = run_both(config, easy_store(10))
    for name, expected in both.reference.weights().items():
        torch.testing.assert_close(both.state.params[name], expected, rtol=0, atol=1e-10)
    for ours, theirs in both.losses:
        assert ours == pytest.approx(theirs, abs=1e-10)


@pytest.mark.parametrize("policy", ["share", "carry", "reset"])
@pytest.mark.parametrize("execution", ["loop", "grouped", "native"])
def test_adam_gives_the_reference_logits_losses_and_second_moment(policy: str, execution: str) -> None:
    skip_without_native(execution)
    # Raw weights are not compared: a convolution's bias before BatchNorm has a gradient of rounding noise,
    # which Adam blows up to a step; BatchNorm then takes it out again.
    config = small_config(inner_state=policy, execution=execution)
    both = run_both(config, easy_store(10))
    for ours, theirs in both.losses:
        assert ours == pytest.approx(theirs, abs=1e-6)
    state, reference = both.state, both.reference
    images = easy_store(3, 4, seed=7).images.double() / 255
    stacked = {name: p[None] for name, p in state.params.items()}
    logits = for_images((1, 28, 28), 3).forward_grouped(stacked, images[None])[0]
    with torch.no_grad():
        torch.testing.assert_close(logits, reference.net(images), rtol=0, atol=1e-6)
    expected_state = {name: reference.optimizer.state[p] for name, p in reference.net.named_parameters()}
    if policy == "reset":  # the reference's optimiser holds the last task's moments, the package carries none
        assert int(state.inner.steps) == 0
        assert all(not v.any() for v in state.inner.v.values())
        return
    done = 3 * config.inner.inner_steps * config.outer.meta_batch
    assert int(state.inner.steps) == done
    for name, v in state.inner.v.items():
        assert int(expected_state[name]["step"]) == done
        torch.testing.assert_close(v, expected_state[name]["exp_avg_sq"], rtol=1e-5, atol=1e-12)


def test_the_three_policies_are_three_algorithms() -> None:
    """Were they one, the comparisons above could not tell a policy that is ignored."""
    losses = {}
    for policy in ("share", "carry", "reset"):
        losses[policy] = run_both(small_config(inner_state=policy, meta_batch=2), easy_store(10)).losses[-1][0]
    assert abs(losses["share"] - losses["reset"]) > 1e-3
    assert abs(losses["share"] - losses["carry"]) > 1e-3
    assert abs(losses["carry"] - losses["reset"]) > 1e-3


def test_batched_tasks_are_the_mean_of_single_tasks() -> None:
    """The meta-gradient of a meta-batch is the mean of its tasks' own, and the state is left as it was."""
    config = small_config(inner_optimizer="sgd", inner_lr=0.1, inner_batch=12, inner_steps=1)
    algorithm = build_algorithm(config, (1, 28, 28), torch.device("cpu"))
    state = algorithm.initial_state(double_params(config))
    before = {name: p.clone() for name, p in state.params.items()}
    sampler = algorithm.sampler(easy_store(10))
    sampler.dtype = torch.float64
    episodes = sampler.sample(4, torch.Generator().manual_seed(0))
    # One batch that holds the whole task: order does not matter, so neither do the draws.
    together = algorithm.meta_gradient(state, episodes, torch.Generator().manual_seed(1))
    alone = [algorithm.meta_gradient(state, episodes[t : t + 1], torch.Generator().manual_seed(t)) for t in range(4)]
    for name, gradient in together.gradient.items():
        expected = torch.stack([part.gradient[name] for part in alone]).mean(0)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-10)
        assert torch.equal(state.params[name], before[name])
    assert max(float(g.abs().max()) for g in together.gradient.values()) > 1e-3


def test_outer_update_moves_towards_the_tasks() -> None:
    """The gradient is phi minus the mean of phi_task: a full step of 1 lands on the mean, half a step half-way."""
    phi, mean = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    settings, state = Config().outer, OuterState.fresh({"w": phi}, "sgd")
    assert torch.equal(outer_update(settings, {"w": phi}, state, {"w": phi - mean}, 1.0)[0]["w"], mean)
    half, _ = outer_update(settings, {"w": phi}, state, {"w": phi - mean}, 0.5)
    assert torch.equal(half["w"], torch.tensor([2.0, 0.0]))
