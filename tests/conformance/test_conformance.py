"""What every algorithm must keep to, whatever it does inside. A new one is picked up by itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.easy import TINY, easy_store, shaken, skip_without_native, small_config
from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.core.config import Config
from torchreptile.core.config.algorithm_table import algorithm_names, algorithm_row
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.outer_step import updated

MINIBATCHES = {"train_shots": 5, "inner_batch": 10, "inner_steps": 4, "eval_steps": 5, "eval_batch": 10}
ONE_STEP = {
    "train_shots": 1, "train_queries": 3, "inner_batch": 0, "inner_steps": 1, "eval_steps": 1, "eval_batch": 0,
    "inner_lr": 0.03, "outer_step_size": 0.004,
}  # fmt: skip
TWO_STEPS = ONE_STEP | {"inner_steps": 2, "eval_steps": 2, "inner_lr": 1.0, "outer_step_size": 0.008}
EMBEDDING = {"train_queries": 3, "outer_step_size": 6e-3}
CLASSIFIER = {"train_way": 16, "train_shots": 1, "eval_steps": 40}
ONE_SHOT = {"train_shots": 1}
# Not moved about: of images of 7 x 7 nothing would be left.
MEMORY = {"mann_jitter": 0.0, "mann_units": 60, "mann_slots": 16, "mann_width": 20, "mann_heads": 2}
OPTIMISER = {
    "train_queries": 3, "outer_step_size": 1e-2, "outer_clip": 0.0, "meta_lstm_units": 6, "meta_lstm_filters": 12,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """An algorithm in one of its forms: what it needs to be small, and to learn within a test.

    Attributes:
        settings: beside those of small_config.
        learning: beside these, in the test of learning: inner steps that leave something to learn.
        steps: outer steps of the test of learning.
        classes: to train on there.
        tasks: per outer step there.
        noise: in the patterns there.
        executions: of those by which T copies of the built-in networks can be computed side by side.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    learning: dict[str, Any] = field(default_factory=lambda: MINIBATCHES)
    steps: int = 30
    classes: int = 30
    tasks: int = 4
    noise: float = 0.2
    executions: tuple[str, ...] = ("grouped", "matmul", "native")


AVERAGED = ("grouped", "matmul")  # where the head sees averages, as in MAML's network
ONE_WAY = ("grouped",)  # where tasks share the weights, or the network is of another kind


# By the algorithm's name, behind which that of a form may stand. An embedding is good from the start at telling random
# patterns apart, and better only after it saw many. MANN must find out what its memory is for.
CASES = {name: Case() for name in algorithm_names()} | {
    "foml separate tail": Case({"foml_tail": 2}),
    "maml": Case(learning=ONE_STEP, executions=AVERAGED),
    "fomaml": Case(learning=ONE_STEP, executions=AVERAGED),
    "meta-sgd": Case(learning=ONE_STEP, executions=AVERAGED),
    "anil": Case(learning=TWO_STEPS, steps=100, executions=AVERAGED),
    "matching": Case(EMBEDDING, ONE_SHOT, 80, 400, executions=ONE_WAY),
    "matching FCE": Case({**EMBEDDING, "fce_reads": 2}, ONE_SHOT, 80, 400, executions=ONE_WAY),
    "matching fine-tuned": Case({**EMBEDDING, "finetune_steps": 2}, ONE_SHOT, 80, 400, executions=ONE_WAY),
    "protonet": Case(EMBEDDING, ONE_SHOT, 80, 400, executions=ONE_WAY),
    "protonet fine-tuned": Case({**EMBEDDING, "finetune_steps": 2}, ONE_SHOT, 80, 400, executions=ONE_WAY),
    "pretrained": Case({**CLASSIFIER, "outer_step_size": 2e-2}, {"eval_steps": 50}, 80, 400, executions=ONE_WAY),
    "pretrained cosine": Case(
        {**CLASSIFIER, "outer_step_size": 6e-3, "pretrained_head": "cosine"},
        {"eval_steps": 50}, 80, 400, executions=ONE_WAY,
    ),
    "mann": Case(
        {**MEMORY, "outer_step_size": 4e-3},
        {"way": 2, "train_shots": 2, "outer_step_size": 1.6e-2},
        steps=1500, classes=100, tasks=16, noise=0.05, executions=ONE_WAY,
    ),
    "meta-lstm": Case(OPTIMISER, MINIBATCHES, 60, executions=ONE_WAY),
}  # fmt: skip
pytestmark = pytest.mark.parametrize("name", CASES)


def start(name: str, classes: int = 30, **changes: object) -> tuple[Config, Algorithm, MetaState]:
    config = small_config(algorithm=name.partition(" ")[0], **CASES[name].settings | changes)
    algorithm = build_algorithm(config, TINY, torch.device("cpu"), classes=classes)
    return (
        config,
        algorithm,
        algorithm.begin(config.run.seed),
    )


def tiny_store(seed: int = 0, classes: int = 30, noise: float = 0.2) -> ImageStore:
    return easy_store(classes, 20, seed, TINY, noise)


def modes(algorithm: Algorithm) -> list[str]:
    """The accuracies that apply."""
    return ["transductive"] * algorithm.transduces + ["inductive"]


def trained(
    algorithm: Algorithm,
    state: MetaState,
    steps: int,
    generator: torch.Generator,
    store: ImageStore | None = None,
    tasks: int = 4,
) -> MetaState:
    """So many outer steps of half the size that the settings begin with."""
    sampler = algorithm.sampler(store or tiny_store())
    for _ in range(steps):
        gradients = algorithm.meta_gradient(state, sampler.sample(tasks, generator), generator)
        state = updated(algorithm.config.outer, state, gradients, algorithm.config.outer.outer_step_size / 2)
    return state


@cache
def after_five_steps(name: str) -> tuple[Algorithm, MetaState]:
    _, algorithm, state = start(name)
    return algorithm, trained(algorithm, state, 5, seeded(1))


def skip_without(execution: str, name: str) -> None:
    """Skip a test where tasks are not computed so, or that would do the same once more."""
    if execution not in CASES[name].executions:
        pytest.skip(f"{name} has no own execution called {execution}")
    skip_without_native(execution)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_equal(one: MetaState, other: MetaState) -> None:
    assert one.params.keys() == other.params.keys()
    assert one.inner.v.keys() == other.inner.v.keys()
    assert one.outer.v.keys() == other.outer.v.keys()
    assert all(torch.equal(mine, its) for mine, its in zip(one.tensors(), other.tensors(), strict=True))


def through_a_file(state: MetaState, config: Config, generator: torch.Generator, path: Path) -> Checkpoint:
    save_checkpoint(
        Checkpoint(config, state, 3, 0.0, generator.get_state(), 0, (0.0, 0), -1.0, "", "cpu", "loop"), path
    )
    return load_checkpoint(path)


def test_same_seed_same_numbers(name: str) -> None:
    """Bitwise, and another seed gives others."""
    states = []
    for seed in (1, 1, 2):
        _, algorithm, state = start(name)
        states.append(trained(algorithm, state, 3, seeded(seed)))
    assert_equal(states[0], states[1])
    if algorithm.config.row.meta_learns:
        furthest = max(float((p - states[2].params[key]).abs().max()) for key, p in states[0].params.items())
        assert furthest > 1e-4


@pytest.mark.parametrize(
    ("policy", "execution"), [("share", "grouped"), ("carry", "grouped"), ("reset", "grouped"), ("share", "native")]
)
def test_resumed_equals_never_stopped(name: str, policy: str, execution: str, tmp_path: Path) -> None:
    """Two steps, a checkpoint, a new algorithm, two more: bitwise four steps."""
    skip_without(execution, name)
    changes = {"inner_state": policy, "execution": execution}
    _, algorithm, state = start(name, **changes)
    uninterrupted = trained(algorithm, state, 4, seeded(1))

    config, algorithm, state = start(name, **changes)
    generator = seeded(1)
    checkpoint = through_a_file(trained(algorithm, state, 2, generator), config, generator, tmp_path / "c.pt")
    _, algorithm, _ = start(name, **changes)
    generator = torch.Generator()
    generator.set_state(checkpoint.generator)
    assert_equal(trained(algorithm, checkpoint.state, 2, generator), uninterrupted)


def test_state_round_trips(name: str, tmp_path: Path) -> None:
    config, algorithm, state = start(name)
    state = trained(algorithm, state, 2, seeded(1))
    assert_equal(through_a_file(state, config, seeded(0), tmp_path / "c.pt").state, state)


def test_training_beats_chance_and_the_start(name: str) -> None:
    """Some outer steps, then 5-way 1-shot on patterns never trained on, 60 episodes: 65% or more, where chance is 20%.

    MANN's episodes are 2-way, where chance is 50%.
    Few evaluation steps, noisy patterns: what was meta-learned must show, by 7 points over the untrained weights.
    (Measured, without and with transduction: Reptile from 62% and 72% to 77% and 93%; MAML from 56% and 77% to 72% and
    87%; ANIL from 58% and 68% to 70% and 85%.)
    """
    case = CASES[name]
    config, algorithm, state = start(name, case.classes, **{"way": 5} | case.learning)
    sampler = EpisodeSampler(tiny_store(seed=1, noise=case.noise), config.task.way, 1, 1)
    before = measure(algorithm, state, sampler, 60, seed=0)
    store = tiny_store(classes=case.classes, noise=case.noise)
    state = trained(algorithm, state, case.steps, seeded(1), store, case.tasks)
    after = measure(algorithm, state, sampler, 60, seed=0)
    if not algorithm.config.row.meta_learns:
        assert after == before
        return
    for mode in modes(algorithm):
        assert getattr(after, mode).mean > 0.65
        assert getattr(after, mode).mean > getattr(before, mode).mean + 0.07


def test_permuted_classes_leave_the_accuracy(name: str) -> None:
    """Which class is called 0 is a matter of names: relabelled, accuracy stays within 12 points over 300 queries.

    Not equal, because the head's rows are weights of their own, one per label: 12 points are 3 standard errors. A
    learner that goes by an image's place in the episode, which tells its label before, would fall to 0.
    """
    _, algorithm, state = start(name, train_shots=5, inner_batch=10, eval_batch=10)
    steps = 40 if name.startswith("pretrained") else 15  # to tell 16 classes from each other takes longer
    state = trained(algorithm, state, steps, seeded(1))
    episodes = EpisodeSampler(tiny_store(seed=1), 3, 1, 1).sample(100, seeded(0))
    turn = torch.tensor([1, 2, 0])
    relabelled = replace(episodes, support_y=turn[episodes.support_y], query_y=turn[episodes.query_y])
    first, second = (algorithm.predict(state, e, seeded(2)) for e in (episodes, relabelled))
    for mode in modes(algorithm):
        right = float((getattr(first, mode) == episodes.query_y).double().mean())
        right_relabelled = float((getattr(second, mode) == relabelled.query_y).double().mean())
        assert name == "mann" or right > 0.6  # chance is a third, and all MANN has after 15 steps
        assert right_relabelled == pytest.approx(right, abs=0.12)


def test_permuted_labels_with_permuted_heads_are_the_same_network(name: str) -> None:
    """Exactly: relabel the classes and reorder the head's rows, and every prediction is the relabelled one."""
    algorithm, state = after_five_steps(name)
    state = state.mapped(torch.Tensor.double)
    turn = torch.tensor([1, 2, 0])  # label c becomes turn[c], so row turn[c] must hold what row c held

    def turned(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        back = turn.argsort()
        rows = {key: t[back] if "head." in key else t for key, t in tensors.items()}
        # A label enters through a separate column.
        return {key: t[:, back] if key.startswith("label.") else t for key, t in rows.items()}

    inner = replace(state.inner, v=turned(state.inner.v))
    other = replace(state, params=turned(state.params), inner=inner)
    episodes = EpisodeSampler(tiny_store(seed=1), 3, 1, 1, torch.float64).sample(20, seeded(0))
    relabelled = replace(episodes, support_y=turn[episodes.support_y], query_y=turn[episodes.query_y])
    first, second = algorithm.predict(state, episodes, seeded(2)), algorithm.predict(other, relabelled, seeded(2))
    for mode in modes(algorithm):
        assert torch.equal(getattr(second, mode), turn[getattr(first, mode)])


def test_one_query_never_changes_another_ones_prediction(name: str) -> None:
    """Without transduction; every query but the first is replaced."""
    algorithm, state = after_five_steps(name)
    episodes = EpisodeSampler(tiny_store(seed=1), 3, 1, 2).sample(30, seeded(0))
    queries = episodes.query_x.clone()
    queries[:, 1:] = torch.rand(queries[:, 1:].shape, generator=seeded(5)) ** 8
    other = replace(episodes, query_x=queries)
    first, second = (algorithm.predict(state, e, seeded(2)).inductive for e in (episodes, other))
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.equal(first[:, 1:], second[:, 1:])


@pytest.mark.parametrize("side_by_side", ["grouped", "matmul", "native"])
def test_batched_equals_sequential(name: str, side_by_side: str) -> None:
    """SGD in float64: four tasks side by side, and the mean of the four done one at a time by the loop."""
    skip_without(side_by_side, name)

    def gradient(execution: str, tasks: slice, generator: torch.Generator) -> MetaGradient:
        # One inner batch holds a whole task, so that the order of its images does not matter.
        _, algorithm, state = start(
            name, inner_optimizer="sgd", inner_lr=0.1, inner_batch=12, inner_steps=3, execution=execution
        )
        sampler = algorithm.sampler(tiny_store())
        sampler.dtype = torch.float64
        state = state.mapped(torch.Tensor.double)
        state = replace(state, params=shaken(state.params))
        return algorithm.meta_gradient(state, sampler.sample(4, seeded(0))[tasks], generator)

    together = gradient(side_by_side, slice(0, 4), seeded(1))
    draws = seeded(1)  # one after another they draw what all draw at once
    alone = [gradient("loop", slice(task, task + 1), draws) for task in range(4)]
    for key, g in together.gradient.items():
        expected = torch.stack([part.gradient[key] for part in alone]).mean(0)
        torch.testing.assert_close(g, expected, rtol=0, atol=1e-10)
    for key, average in together.averages.items():
        torch.testing.assert_close(
            average, torch.stack([part.averages[key] for part in alone]).mean(0), rtol=0, atol=1e-10
        )
    assert (
        not algorithm_row(name.partition(" ")[0]).meta_learns
        or max(float(g.abs().max()) for g in together.gradient.values()) > 1e-3
    )
    assert float(together.loss) == pytest.approx(sum(float(part.loss) for part in alone) / 4, abs=1e-10)
