"""Checks for algorithms of your own, as scikit-learn's ``check_estimator`` is for estimators."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from torchreptile.algorithms.base import Adapted, Algorithm, Predictions
from torchreptile.algorithms.build import build_algorithm, use_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.core.config.presets import for_algorithm
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler
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
    through a checkpoint; predictions do not depend on the labels of queries, nor the inductive ones on the other
    queries; an adapted learner is the same after it was saved.

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


def _require(holds: bool, message: str) -> None:
    """Raise AssertionError unless a property holds; ``assert`` would be left out under ``python -O``."""
    if not holds:
        raise AssertionError(message)


def _predicted(algorithm: Algorithm, state: MetaState, episodes: Episodes) -> Predictions:
    return algorithm.predict(state, episodes, torch.Generator().manual_seed(1))


def _agreement(one: Predictions, other: Predictions) -> float:
    """Return the share of labels that are equal, in the mode in which fewer are."""
    modes = [(one.inductive, other.inductive)]
    if one.transductive is not None and other.transductive is not None:
        modes.append((one.transductive, other.transductive))
    return min(float((mine == its).double().mean()) for mine, its in modes)


def _episodes(config: Config, tasks: int = 4) -> Episodes:
    sampler = EpisodeSampler(patterns(), config.task.way, config.task.shots, 2)
    return sampler.sample(tasks, torch.Generator().manual_seed(5))


def check_same_seed(config: Config) -> None:
    """Same seed, same bits; another seed, other weights."""
    first, again, other = (_trained(config, seed) for seed in (1, 1, 2))
    _require(_equal(first, again), "the same seed gave other weights: draw every random number from the generator")
    _require(not config.row.meta_learns or not _equal(first, other), "another seed gave the same weights")
    _require(all(bool(t.isfinite().all()) for t in first.tensors()), "weights are not finite after three steps")


def check_unchanged_arguments(config: Config) -> None:
    """A meta-gradient and an adaptation leave state and episodes as they were."""
    algorithm, state = _built(config)
    before = state.mapped(torch.Tensor.clone)
    generator = torch.Generator().manual_seed(1)
    algorithm.meta_gradient(state, algorithm.sampler(patterns()).sample(2, generator), generator)
    _require(_equal(state, before), "meta_gradient changed the state that it was given")
    episodes = _episodes(config)
    pixels = episodes.support_x.clone()
    algorithm.predict(state, episodes, generator)
    _require(_equal(state, before), "adapting changed the state that it was given")
    _require(torch.equal(episodes.support_x, pixels), "adapting changed the images that it was given")


def check_gradient_shapes(config: Config) -> None:
    """The meta-gradient is shaped as the parameters are."""
    algorithm, state = _built(config)
    generator = torch.Generator().manual_seed(1)
    gradient = algorithm.meta_gradient(state, algorithm.sampler(patterns()).sample(2, generator), generator)
    shapes = {name: p.shape for name, p in state.params.items()}
    found = {name: p.shape for name, p in gradient.gradient.items()}
    _require(found == shapes, f"the meta-gradient has shapes {found}, the parameters have {shapes}")
    shape = tuple(gradient.loss.shape)
    _require(shape == (), f"the loss has shape {shape}; it must be a single number")


def check_chunks(config: Config) -> None:
    """How many tasks are computed at a time changes nothing but rounding, in training and in predictions."""
    together, single = (_trained(config.replace(task_chunk=size, inner_optimizer="sgd"), 1, 1) for size in (3, 1))
    for name, p in together.params.items():
        furthest = float((p - single.params[name]).abs().max())
        _require(furthest < 1e-4, f"one task at a time gave other weights: {name} differs by {furthest:.2g}")
    episodes = _episodes(config)
    answers = [_predicted(*_built(config.replace(task_chunk=size)), episodes) for size in (4, 1)]
    share = _agreement(*answers)
    _require(share > 0.95, f"one task at a time, {1 - share:.0%} of the queries got another label")


def check_checkpoint(config: Config) -> None:
    """Resuming from a checkpoint gives the same bits as training without a break."""
    state = _trained(config, 1)
    saved = Checkpoint(config, state, 3, 0.0, torch.Generator().get_state(), 0, (0.0, 0), -1.0, "", "cpu", "loop")
    read = load_checkpoint(io.BytesIO(checkpoint_bytes(saved))).state
    _require(_equal(read, state), "a checkpoint lost something of the state")
    _require(
        _equal(_trained(config, 2, 2, read), _trained(config, 2, 2, state)), "a resumed training gave other weights"
    )


def check_predictions(config: Config) -> None:
    """Labels are shaped as the queries, follow from the images alone, and inductive ones not from other queries."""
    algorithm, state = _built(config)
    episodes = _episodes(config)
    answers = _predicted(algorithm, state, episodes)
    _require(answers.inductive.shape == episodes.query_y.shape, "one label per query is wanted")
    _require(int(answers.inductive.min()) >= 0, "a label is negative")
    _require(int(answers.inductive.max()) < config.task.way, "a label is beyond the number of classes")
    hidden = replace(episodes, query_y=(episodes.query_y + 1) % config.task.way)
    share = _agreement(answers, _predicted(algorithm, state, hidden))
    _require(share == 1, f"{1 - share:.0%} of the queries are labelled otherwise once their true labels are others")
    turned = replace(episodes, query_x=episodes.query_x.flip(1), query_y=episodes.query_y.flip(1))
    again = _predicted(algorithm, state, turned).inductive.flip(1)
    share = float((answers.inductive == again).double().mean())
    _require(share > 0.95, f"in another order {1 - share:.0%} of the queries got another inductive label")


@torch.no_grad()
def check_settled(config: Config) -> None:
    """A learner made anew from its ``settled`` state and settings, as a saved classifier is, gives the same logits."""
    algorithm, state = _built(config)
    episodes = _episodes(config, 1)

    def adapted(by: Algorithm, its: MetaState) -> Adapted:
        drawn = by.draw(1, episodes.support_y.shape[1], torch.Generator().manual_seed(1))
        return by.adapt(its, episodes.support_x, episodes.support_y, drawn)

    learner = adapted(algorithm, state)
    settled, settings = algorithm.settled(state, learner)
    logits, again = (it.inductive(episodes.query_x) for it in (learner, adapted(_built(settings)[0], settled)))
    furthest = float((logits - again).abs().max() / logits.abs().max().clamp(min=1))
    _require(
        furthest < 1e-4, f"a learner made from what settled returns differs by {furthest:.2g} of the largest logit"
    )


CHECKS: tuple[Callable[[Config], None], ...] = (
    check_same_seed,
    check_unchanged_arguments,
    check_gradient_shapes,
    check_chunks,
    check_checkpoint,
    check_predictions,
    check_settled,
)
