"""What every algorithm must keep to, whatever it does inside. A new one is picked up from ALGORITHMS by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.easy import TINY, double_params, easy_store, skip_without_native, small_config
from torchreptile.algorithms import ALGORITHMS, Algorithm, MetaGradient, MetaState, build_algorithm
from torchreptile.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from torchreptile.config import Config
from torchreptile.data import ImageStore
from torchreptile.episodes import EpisodeSampler
from torchreptile.evaluation import measure
from torchreptile.outer import moved

pytestmark = pytest.mark.parametrize("name", ALGORITHMS)


def start(name: str, **changes: object) -> tuple[Config, Algorithm, MetaState]:
    config = small_config(algorithm=name, **changes)
    algorithm = build_algorithm(config, TINY, torch.device("cpu"))
    return (
        config,
        algorithm,
        algorithm.begin(config.run.seed),
    )


def tiny_store(seed: int = 0) -> ImageStore:
    return easy_store(30, 20, seed, TINY, noise=0.2)


def trained(algorithm: Algorithm, state: MetaState, steps: int, generator: torch.Generator) -> MetaState:
    """So many outer steps of half the size that the settings begin with, on tasks of four."""
    sampler = algorithm.sampler(tiny_store())
    for _ in range(steps):
        learned = algorithm.meta_gradient(state, sampler.sample(4, generator), generator)
        state = moved(algorithm.config.outer, state, learned, algorithm.config.outer.outer_step_size / 2)
    return state


# Inner steps by SGD that leave something to learn, and how many outer steps that takes: see the test of learning.
MINIBATCHES = {"train_shots": 5, "inner_batch": 10, "inner_steps": 4, "eval_steps": 5, "eval_batch": 5}
ONE_STEP = {
    "train_shots": 1, "train_queries": 3, "inner_batch": 0, "inner_steps": 1, "eval_steps": 1, "eval_batch": 0,
    "inner_lr": 0.03, "outer_step_size": 0.004,
}  # fmt: skip
EASY = {
    "maml": (ONE_STEP, 30),
    "fomaml": (ONE_STEP, 30),
    "meta-sgd": (ONE_STEP, 30),
    "anil": (ONE_STEP | {"inner_steps": 2, "eval_steps": 2, "inner_lr": 1.0, "outer_step_size": 0.008}, 100),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_equal(one: MetaState, other: MetaState) -> None:
    assert one.params.keys() == other.params.keys()
    assert one.inner.v.keys() == other.inner.v.keys()
    assert one.outer.v.keys() == other.outer.v.keys()
    assert all(torch.equal(mine, its) for mine, its in zip(one.tensors(), other.tensors(), strict=True))


def through_a_file(state: MetaState, config: Config, generator: torch.Generator, path: Path) -> Checkpoint:
    save_checkpoint(Checkpoint(config, state, 3, 0.0, generator.get_state(), 0, (0.0, 0), -1.0, ""), path)
    return load_checkpoint(path)


def test_same_seed_same_numbers(name: str) -> None:
    """Bitwise, and another seed gives others."""
    states = []
    for seed in (1, 1, 2):
        _, algorithm, state = start(name)
        states.append(trained(algorithm, state, 3, seeded(seed)))
    assert_equal(states[0], states[1])
    assert not torch.allclose(states[0].params["head.weight"], states[2].params["head.weight"], atol=1e-4)


@pytest.mark.parametrize(
    ("policy", "execution"), [("share", "grouped"), ("carry", "grouped"), ("reset", "grouped"), ("share", "native")]
)
def test_resumed_equals_never_stopped(name: str, policy: str, execution: str, tmp_path: Path) -> None:
    """Three steps, a checkpoint, a new algorithm, three more: bitwise six steps."""
    skip_without_native(execution)
    changes = {"inner_state": policy, "execution": execution}
    _, algorithm, state = start(name, **changes)
    whole = trained(algorithm, state, 6, seeded(1))

    config, algorithm, state = start(name, **changes)
    generator = seeded(1)
    checkpoint = through_a_file(trained(algorithm, state, 3, generator), config, generator, tmp_path / "c.pt")
    _, algorithm, _ = start(name, **changes)
    generator = torch.Generator()
    generator.set_state(checkpoint.generator)
    assert_equal(trained(algorithm, checkpoint.state, 3, generator), whole)


def test_state_round_trips(name: str, tmp_path: Path) -> None:
    config, algorithm, state = start(name)
    state = trained(algorithm, state, 2, seeded(1))
    assert_equal(through_a_file(state, config, seeded(0), tmp_path / "c.pt").state, state)


def test_training_beats_chance_and_the_start(name: str) -> None:
    """Some outer steps, then 5-way 1-shot on patterns never trained on, 60 episodes: 65% or more, where chance is 20%.

    Few evaluation steps, noisy patterns: what was meta-learned must show, by 7 points over the untrained weights.
    (Measured, without and with transduction: Reptile from 62% and 72% to 77% and 93%; MAML from 56% and 77% to 72% and
    87%; ANIL from 58% and 68% to 70% and 85%.)
    """
    settings, steps = EASY.get(name, (MINIBATCHES, 30))
    _, algorithm, state = start(name, way=5, **settings)
    sampler = EpisodeSampler(tiny_store(seed=1), 5, 1, 1)
    before = measure(algorithm, state, sampler, 60, seed=0)
    after = measure(algorithm, trained(algorithm, state, steps, seeded(1)), sampler, 60, seed=0)
    for mode in ("transductive", "non_transductive"):
        assert getattr(after, mode).mean > 0.65
        assert getattr(after, mode).mean > getattr(before, mode).mean + 0.07


def test_permuted_classes_leave_the_accuracy(name: str) -> None:
    """Which class is called 0 is a matter of names: relabelled, accuracy stays within 12 points over 300 queries.

    Not equal, because the head's rows are weights of their own, one per label: 12 points are 3 standard errors. A
    learner that goes by an image's place in the episode, which tells its label before, would fall to 0.
    """
    _, algorithm, state = start(name, train_shots=5, inner_batch=10)
    state = trained(algorithm, state, 20, seeded(1))
    episodes = EpisodeSampler(tiny_store(seed=1), 3, 1, 1).sample(100, seeded(0))
    turn = torch.tensor([1, 2, 0])
    relabelled = replace(episodes, support_y=turn[episodes.support_y], query_y=turn[episodes.query_y])
    first, second = (algorithm.predict(state, e, seeded(2)) for e in (episodes, relabelled))
    for mode in ("transductive", "non_transductive"):
        right = float((getattr(first, mode) == episodes.query_y).double().mean())
        right_relabelled = float((getattr(second, mode) == relabelled.query_y).double().mean())
        assert right > 0.6  # chance is a third
        assert right_relabelled == pytest.approx(right, abs=0.12)


def test_permuted_labels_with_permuted_heads_are_the_same_network(name: str) -> None:
    """Exactly: relabel the classes and reorder the head's rows, and every prediction is the relabelled one."""
    _, algorithm, state = start(name)
    state = trained(algorithm, state, 5, seeded(1))
    state = state.mapped(torch.Tensor.double)
    turn = torch.tensor([1, 2, 0])  # label c becomes turn[c], so row turn[c] must hold what row c held

    def turned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        back = turn.argsort()
        return {key: t[back] if "head." in key else t for key, t in tensors.items()}

    inner = replace(state.inner, v=turned(state.inner.v))
    other = replace(state, params=turned(state.params), inner=inner)
    episodes = EpisodeSampler(tiny_store(seed=1), 3, 1, 1, torch.float64).sample(20, seeded(0))
    relabelled = replace(episodes, support_y=turn[episodes.support_y], query_y=turn[episodes.query_y])
    first, second = algorithm.predict(state, episodes, seeded(2)), algorithm.predict(other, relabelled, seeded(2))
    assert torch.equal(second.transductive, turn[first.transductive])
    assert torch.equal(second.non_transductive, turn[first.non_transductive])


def test_one_query_never_changes_another_ones_prediction(name: str) -> None:
    """Without transduction; every query but the first is replaced."""
    _, algorithm, state = start(name)
    state = trained(algorithm, state, 5, seeded(1))
    episodes = EpisodeSampler(tiny_store(seed=1), 3, 1, 2).sample(30, seeded(0))
    queries = episodes.query_x.clone()
    queries[:, 1:] = torch.rand(queries[:, 1:].shape, generator=seeded(5)) ** 8
    other = replace(episodes, query_x=queries)
    first, second = (algorithm.predict(state, e, seeded(2)).non_transductive for e in (episodes, other))
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.equal(first[:, 1:], second[:, 1:])


@pytest.mark.parametrize("side_by_side", ["grouped", "matmul", "native"])
def test_batched_equals_sequential(name: str, side_by_side: str) -> None:
    """SGD in float64: four tasks side by side, and the mean of the four done one at a time by the loop."""
    skip_without_native(side_by_side)

    def gradient(execution: str, tasks: slice) -> MetaGradient:
        # One inner batch holds a whole task, so that the order of its images does not matter.
        config = small_config(
            algorithm=name, inner_optimizer="sgd", inner_lr=0.1, inner_batch=12, inner_steps=3, execution=execution
        )
        algorithm = build_algorithm(config, TINY, torch.device("cpu"))
        sampler = algorithm.sampler(tiny_store())
        sampler.dtype = torch.float64
        state = algorithm.initial_state(double_params(config, TINY))
        return algorithm.meta_gradient(state, sampler.sample(4, seeded(0))[tasks], seeded(1))

    together = gradient(side_by_side, slice(0, 4))
    alone = [gradient("loop", slice(task, task + 1)) for task in range(4)]
    for key, g in together.gradient.items():
        expected = torch.stack([part.gradient[key] for part in alone]).mean(0)
        torch.testing.assert_close(g, expected, rtol=0, atol=1e-10)
    assert float(together.gradient["head.weight"].abs().max()) > 1e-3
    assert float(together.loss) == pytest.approx(sum(float(part.loss) for part in alone) / 4, abs=1e-10)
