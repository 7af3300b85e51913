"""Checks for algorithms of your own, as scikit-learn's ``check_estimator`` is for estimators."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from torchreptile.algorithms.base import Algorithm, MetaState
from torchreptile.algorithms.build import build_algorithm, use_algorithm
from torchreptile.core.config import Config
from torchreptile.core.config.presets import for_algorithm
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.training.checkpoint import Checkpoint, checkpoint_bytes, load_checkpoint
from torchreptile.training.outer_step import updated

SHAPE = (1, 12, 12)
SMALL: dict[str, Any] = {
    "dataset": "glyphs", "way": 3, "train_shots": 4, "inner_batch": 5, "inner_steps": 3, "outer_steps": 6,
    "meta_batch": 3, "eval_steps": 4, "eval_batch": 3, "device": "cpu", "execution": "loop",
}  # fmt: skip
CPU = torch.device("cpu")


def check_algorithm(algorithm: type[Algorithm] | str, **settings: Any) -> None:
    """Check that an algorithm keeps to what the rest of the package relies on.

    It is trained for a few steps on 3-way tasks of 12 x 12 images: same seed, same bits; another seed, other weights;
    what it is given is left unchanged; the number of tasks computed at a time makes no difference; training goes
    through a checkpoint; the inductive label of a query does not depend on the other queries.

    Args:
        algorithm: a class with a ``row``, or the name of a known algorithm.
        settings: changes to the small configuration, such as a setting of the algorithm.

    Raises:
        AssertionError: a property does not hold; the message names it.
        ConfigError: the algorithm cannot be built.

    Example:
        >>> check_algorithm("reptile")
    """
    name = algorithm if isinstance(algorithm, str) else use_algorithm(algorithm)
    config = for_algorithm(name, Config())
    small = {key: value for key, value in SMALL.items() if key != "train_shots" or config.task.train_shots}
    if config.task.train_way:
        small["train_way"] = min(config.task.train_way, 6)  # the patterns have few classes
    config = config.replace(**{**small, **({"train_queries": 2} if config.row.learns_from_queries else {}), **settings})
    for check in CHECKS:
        check(config)


def patterns(classes: int = 12, images: int = 10) -> ImageStore:
    """Return a store of noisy patterns, one per class, drawn from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    base = torch.rand(classes, 1, *SHAPE, generator=generator)
    noisy = (base + 0.3 * torch.rand(classes, images, *SHAPE, generator=generator)).clamp(0, 1)
    return ImageStore.from_arrays({f"class {k}": (255 * noisy[k]).byte() for k in range(classes)}, "patterns")


def _built(config: Config) -> tuple[Algorithm, MetaState]:
    algorithm = build_algorithm(config, SHAPE, CPU, classes=len(patterns()))
    return algorithm, algorithm.begin(config.run.seed)


def _trained(config: Config, seed: int, steps: int = 3, start: MetaState | None = None) -> MetaState:
    algorithm, state = _built(config)
    state = state if start is None else start
    sampler, generator = algorithm.sampler(patterns()), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        gradient = algorithm.meta_gradient(state, sampler.sample(config.outer.meta_batch, generator), generator)
        state = updated(config.outer, state, gradient, config.outer.outer_step_size)
    return state


def _equal(one: MetaState, other: MetaState) -> bool:
    return all(torch.equal(mine, its) for mine, its in zip(one.tensors(), other.tensors(), strict=True))


def _episodes(config: Config, algorithm: Algorithm, tasks: int = 4) -> Episodes:
    from torchreptile.data.samplers import EpisodeSampler

    sampler = EpisodeSampler(patterns(), config.task.way, config.task.shots, 2)
    return sampler.sample(tasks, torch.Generator().manual_seed(5))


def check_same_seed(config: Config) -> None:
    """Same seed, same bits; another seed, other weights."""
    first, again, other = (_trained(config, seed) for seed in (1, 1, 2))
    assert _equal(first, again), "the same seed gave other weights: draw every random number from the generator"
    assert not config.row.meta_learns or not _equal(first, other), "another seed gave the same weights"
    assert all(bool(t.isfinite().all()) for t in first.tensors()), "weights are not finite after three steps"


def check_unchanged_arguments(config: Config) -> None:
    """A meta-gradient and an adaptation leave state and episodes as they were."""
    algorithm, state = _built(config)
    before = state.mapped(torch.Tensor.clone)
    generator = torch.Generator().manual_seed(1)
    algorithm.meta_gradient(state, algorithm.sampler(patterns()).sample(2, generator), generator)
    assert _equal(state, before), "meta_gradient changed the state that it was given"
    episodes = _episodes(config, algorithm)
    pixels = episodes.support_x.clone()
    algorithm.predict(state, episodes, generator)
    assert _equal(state, before), "adapting changed the state that it was given"
    assert torch.equal(episodes.support_x, pixels), "adapting changed the images that it was given"


def check_gradient_shapes(config: Config) -> None:
    """The meta-gradient is shaped as the parameters are."""
    algorithm, state = _built(config)
    generator = torch.Generator().manual_seed(1)
    gradient = algorithm.meta_gradient(state, algorithm.sampler(patterns()).sample(2, generator), generator)
    shapes = {name: p.shape for name, p in state.params.items()}
    found = {name: p.shape for name, p in gradient.gradient.items()}
    assert found == shapes, f"the meta-gradient has shapes {found}, the parameters have {shapes}"
    assert gradient.loss.ndim == 0, f"the loss has shape {tuple(gradient.loss.shape)}; it must be a single number"


def check_chunks(config: Config) -> None:
    """How many tasks are computed at a time changes nothing but rounding."""
    together, single = (_trained(config.replace(task_chunk=size, inner_optimizer="sgd"), 1, 1) for size in (3, 1))
    for name, p in together.params.items():
        furthest = float((p - single.params[name]).abs().max())
        assert furthest < 1e-4, f"one task at a time gave other weights: {name} differs by {furthest:.2g}"


def check_checkpoint(config: Config) -> None:
    """Resuming from a checkpoint gives the same bits as training without a break."""
    state = _trained(config, 1)
    saved = Checkpoint(config, state, 3, 0.0, torch.Generator().get_state(), 0, (0.0, 0), -1.0, "", "cpu", "loop")
    read = load_checkpoint(io.BytesIO(checkpoint_bytes(saved))).state
    assert _equal(read, state), "a checkpoint lost something of the state"
    assert _equal(_trained(config, 2, 2, read), _trained(config, 2, 2, state)), "a resumed training gave other weights"


def check_predictions(config: Config) -> None:
    """Labels are shaped as the queries, and inductive ones do not depend on the other queries."""
    algorithm, state = _built(config)
    episodes = _episodes(config, algorithm)
    answers = algorithm.predict(state, episodes, torch.Generator().manual_seed(1))
    assert answers.inductive.shape == episodes.query_y.shape, "one label per query is wanted"
    assert int(answers.inductive.min()) >= 0, "a label is negative"
    assert int(answers.inductive.max()) < config.task.way, "a label is beyond the number of classes"
    turned = replace(episodes, query_x=episodes.query_x.flip(1), query_y=episodes.query_y.flip(1))
    again = algorithm.predict(state, turned, torch.Generator().manual_seed(1)).inductive.flip(1)
    share = float((answers.inductive == again).double().mean())
    assert share > 0.95, f"in another order {1 - share:.0%} of the queries got another inductive label"


CHECKS: tuple[Callable[[Config], None], ...] = (
    check_same_seed,
    check_unchanged_arguments,
    check_gradient_shapes,
    check_chunks,
    check_checkpoint,
    check_predictions,
)
