"""What every algorithm that fits functions must keep to, beside what it keeps to with images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.easy import FIT_FUNCTIONS
from tests.functions import small_sine
from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.core.config import Config
from torchreptile.data.episodes import Episodes
from torchreptile.data.functions.sine import sines
from torchreptile.data.samplers import SineSampler, sampler_of
from torchreptile.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.evaluation.results import Fit
from torchreptile.training.outer_step import updated

pytestmark = pytest.mark.parametrize("name", FIT_FUNCTIONS)

LEARNING = {"mlp_units": 32, "inner_steps": 5, "eval_steps": 5, "shots": 10, "train_shots": 50, "inner_batch": 10}
QUERIES = {"train_shots": 10, "train_queries": 20, "inner_batch": 0, "inner_lr": 0.02, "outer_step_size": 4e-3}
# Of the test of learning: settings, and outer steps.
CASES = {
    "reptile": ({"outer_step_size": 1.0, "inner_lr": 0.05}, 800),
    "foml": ({"outer_step_size": 1.0, "inner_lr": 0.05}, 800),
    "scratch": ({}, 1),
    "meta-lstm": (QUERIES | {"meta_lstm_units": 8, "outer_step_size": 1e-2}, 600),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def start(name: str, **changes: object) -> tuple[Config, Algorithm, MetaState]:
    config = small_sine(name, **changes)
    algorithm = build_algorithm(config, (1,), torch.device("cpu"), targets=1)
    return config, algorithm, algorithm.begin(config.run.seed)


def trained(algorithm: Algorithm, state: MetaState, steps: int, generator: torch.Generator) -> MetaState:
    """So many outer steps, annealed to nothing."""
    sampler, size = algorithm.sampler(sines("sine")), algorithm.config.outer.outer_step_size
    for step in range(steps):
        gradients = algorithm.meta_gradient(state, sampler.sample(4, generator), generator)
        state = updated(algorithm.config.outer, state, gradients, size * (1 - step / steps))
    return state


def assert_equal(one: MetaState, other: MetaState) -> None:
    assert all(torch.equal(mine, its) for mine, its in zip(one.tensors(), other.tensors(), strict=True))


def episodes(dtype: torch.dtype = torch.float32) -> Episodes:
    return SineSampler(sines("sine"), 5, 7, dtype).sample(20, seeded(3))


def test_same_seed_same_numbers(name: str) -> None:
    """Bitwise, and another seed gives others."""
    states = [trained(*start(name)[1:], 3, seeded(seed)) for seed in (1, 1, 2)]
    assert_equal(states[0], states[1])
    if name != "scratch":
        assert max(float((p - states[2].params[key]).abs().max()) for key, p in states[0].params.items()) > 1e-5


def test_resumed_equals_never_stopped(name: str, tmp_path: Path) -> None:
    """Three steps, a checkpoint, a new algorithm, three more: bitwise six steps. Adam's memory comes along."""
    adam = {"inner_optimizer": "adam"} if name in ("reptile", "foml", "scratch") else {}
    _, algorithm, state = start(name, **adam)
    sampler, size = algorithm.sampler(sines("sine")), algorithm.config.outer.outer_step_size / 2

    def on(algorithm: Algorithm, state: MetaState, generator: torch.Generator) -> MetaState:
        for _ in range(3):
            gradients = algorithm.meta_gradient(state, sampler.sample(4, generator), generator)
            state = updated(algorithm.config.outer, state, gradients, size)
        return state

    generator = seeded(1)
    half = on(algorithm, state, generator)
    file = tmp_path / "c.pt"
    save_checkpoint(
        Checkpoint(algorithm.config, half, 3, 0.0, generator.get_state(), 0, (0.0, 0), -1.0, "", "cpu", "loop"), file
    )
    uninterrupted = on(algorithm, half, generator)

    saved = load_checkpoint(file)
    assert_equal(saved.state, half)
    generator.set_state(saved.generator)
    assert_equal(on(start(name, **adam)[1], saved.state, generator), uninterrupted)


def test_training_halves_the_error(name: str) -> None:
    """Five inner steps on 10 points of new waves, 200 of them: half the error of the untrained weights, or less.

    (Measured: from 4.3 to 0.3 by Reptile, 0.4 by Meta-SGD, 0.6 by MAML and ANIL, 0.9 by both of first order, and
    from 0.4 to 1.3 by Meta-LSTM, as sums are rounded and tasks drawn.)
    """
    changes, steps = CASES.get(name, (QUERIES, 400))
    _, algorithm, state = start(name, **(LEARNING | changes))
    sampler = sampler_of(sines("sine"), 1, 10, 50)
    before = measure(algorithm, state, sampler, 200, seed=0)
    after = measure(algorithm, trained(algorithm, state, steps, seeded(1)), sampler, 200, seed=0)
    assert isinstance(before, Fit)
    assert isinstance(after, Fit)
    if name == "scratch":
        assert after == before
        return
    assert after.mse.mean < 0.5 * before.mse.mean
    assert after.mse.mean < 0.5 * after.mse_before.mean


def test_one_query_never_changes_what_is_said_of_another(name: str) -> None:
    _, algorithm, state = start(name)
    one = episodes()
    queries = one.query_x.clone()
    queries[:, 1:] += 3
    first, second = (algorithm.predict(state, its, seeded(2)).inductive for its in (one, replace(one, query_x=queries)))
    torch.testing.assert_close(first[:, 0], second[:, 0])
    assert float((first[:, 1:] - second[:, 1:]).abs().max()) > 1e-3


def test_the_order_of_known_points_says_nothing(name: str) -> None:
    """Where every step sees all of them, in float64."""
    _, algorithm, state = start(name, eval_batch=0)
    state = state.mapped(torch.Tensor.double)
    one = episodes(torch.float64)
    turned = replace(one, support_x=one.support_x.flip(1), support_y=one.support_y.flip(1))
    first, second = (algorithm.predict(state, its, seeded(2)).inductive for its in (one, turned))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-9)


@pytest.mark.parametrize("side_by_side", ["matmul", "vmap"])
def test_batched_equals_sequential(name: str, side_by_side: str) -> None:
    """In float64: four tasks side by side, and the mean of the four done one at a time by the loop."""

    def gradient(execution: str, tasks: slice, generator: torch.Generator) -> MetaGradient:
        _, algorithm, state = start(name, inner_batch=10, execution=execution)
        sampler = algorithm.sampler(sines("sine"))
        assert isinstance(sampler, SineSampler)
        sampler.dtype = torch.float64
        return algorithm.meta_gradient(
            state.mapped(torch.Tensor.double), sampler.sample(4, seeded(0))[tasks], generator
        )

    together = gradient(side_by_side, slice(0, 4), seeded(1))
    draws = seeded(1)  # one after another they draw what all draw at once
    alone = [gradient("loop", slice(task, task + 1), draws) for task in range(4)]
    for key, g in together.gradient.items():
        torch.testing.assert_close(g, torch.stack([part.gradient[key] for part in alone]).mean(0), rtol=0, atol=1e-10)
    assert name == "scratch" or max(float(g.abs().max()) for g in together.gradient.values()) > 1e-3
    assert float(together.loss) == pytest.approx(sum(float(part.loss) for part in alone) / 4, abs=1e-10)
