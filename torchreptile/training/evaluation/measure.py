"""Measure the accuracy, or the error, of an algorithm over freshly drawn episodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm, Predictions
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.cuda_graph import Recording
from torchreptile.data.functions.tables import Scale
from torchreptile.data.samplers import EpisodeSampler, RowSampler, Sampler
from torchreptile.models.losses import NO_ANSWER, scores
from torchreptile.training.evaluation.labels import ERRORS, MODES
from torchreptile.training.evaluation.results import Accuracy, Fit, Measured, Result, SquaredError

# Episodes drawn at a time. A constant, because the size of a draw decides which random numbers it gets:
# the first 1,000 of 10,000 episodes are the same as 1,000 episodes with the same seed.
EPISODES_PER_DRAW = 100
# Adaptation draws from a separate stream. How many numbers it takes depends on algorithm, steps and mini-batches;
# from one common stream, every episode after the first draw would depend on them too.
ADAPTATION_STREAM = 0x9E3779B9
RECORD_FROM = 5  # draws from which recording one as a CUDA graph pays


def measure(
    algorithm: Algorithm,
    state: MetaState,
    sampler: Sampler,
    episodes: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Measure ``state`` on freshly drawn episodes.

    Args:
        algorithm: adapts and predicts.
        state: meta-learned weights; not changed.
        sampler: draws episodes with a query set.
        episodes: number of episodes, at least 2.
        seed: seed of episodes and inner batches; the episodes depend on it and on ``sampler`` alone.
        on_progress: called with the number of episodes done.

    Returns:
        Accuracies in both modes, or errors before and after adaptation for functions.
    """
    return measure_episodes(algorithm, state, sampler, episodes, seed, on_progress).result()


@dataclass(frozen=True, eq=False)
class EpisodeScores:
    """The scores and predictions of every episode, on the CPU.

    Attributes:
        scores: (episodes,) float64 by the name of the measure, in the order of tables: accuracies in the modes that
            apply, then extra metrics; or squared errors.
        predicted: (episodes, way * queries) labels by mode, ``NO_ANSWER`` where the network diverged; empty for
            functions.
        extra_metrics: which of the scores are extra metrics; they are measured on separate episodes.
        diverged: (episodes,) whether a prediction was not a finite number.
    """

    scores: dict[str, Tensor]
    predicted: dict[str, Tensor]
    extra_metrics: tuple[str, ...]
    diverged: Tensor

    def result(self) -> Measured:
        """Return the means over all episodes."""
        diverged = int(self.diverged.sum())
        if "mse" in self.scores:
            return Fit(**{name: SquaredError.over(errors) for name, errors in self.scores.items()}, diverged=diverged)
        means = {name: Accuracy.over(accuracies) for name, accuracies in self.scores.items()}
        extra = {name: means[name] for name in self.extra_metrics}
        return Result(means.get("transductive"), means["inductive"], extra, diverged)


def measure_episodes(
    algorithm: Algorithm,
    state: MetaState,
    sampler: Sampler,
    episodes: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> EpisodeScores:
    """Measure ``state`` on freshly drawn episodes, and return the scores of each.

    Args:
        algorithm, state, sampler, episodes, seed, on_progress: see :func:`measure`.
    """
    device = sampler.store.device
    generator = torch.Generator(device).manual_seed(seed)
    adaptation = torch.Generator(device).manual_seed(seed ^ ADAPTATION_STREAM)
    extra = algorithm.extra_metrics(sampler.store)

    def measured(tasks: int) -> tuple[Tensor, Tensor]:
        """Scores of each episode (rows, tasks), the extra metrics last; labels (modes, tasks, queries)."""
        with algorithm.execution.claim():
            drawn = sampler.sample(EPISODES_PER_DRAW, generator)[:tasks]
            predictions = algorithm.predict(state, drawn, adaptation)
        rows = torch.stack(_rows(predictions, drawn.query_y, sampler.scale))
        if extra is not None:
            separate = extra.sampler.sample(EPISODES_PER_DRAW, adaptation)[:tasks]
            rows = torch.cat([rows, algorithm.measure_extra(state, separate, adaptation).double()])
        labels = rows[:0] if predictions.before is not None else torch.stack(_labels(predictions))
        return rows, labels.int()

    generators = (generator, adaptation)
    rows, labels = _in_draws(measured, episodes, generators, algorithm.execution.draws, on_progress)
    names = ERRORS if algorithm.config.task.regression else MODES if algorithm.transduces else MODES[1:]
    extra_names = () if extra is None else tuple(extra.names)
    diverged = ~rows.isfinite().all(0)
    if len(labels):
        diverged |= (labels == NO_ANSWER).any(0).any(-1)
    return EpisodeScores(
        dict(zip((*names[: len(rows) - len(extra_names)], *extra_names), rows, strict=True)),
        dict(zip(names, labels, strict=False)),
        extra_names,
        diverged,
    )


def episode_indices(sampler: EpisodeSampler | RowSampler, episodes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return which classes and images, or tasks and rows, the episodes of a measurement have, on the CPU.

    Args:
        sampler, episodes, seed: see :func:`measure`.

    Returns:
        (episodes, way) int32 classes, and (episodes, way, shots + queries) int32 images, the support images first.
    """
    generator = torch.Generator(sampler.store.device).manual_seed(seed)
    draws = [sampler.indices(EPISODES_PER_DRAW, generator) for _ in range(0, episodes, EPISODES_PER_DRAW)]
    classes, images = (torch.cat(part)[:episodes].int().cpu() for part in zip(*draws, strict=True))
    return classes, images


def _in_draws(
    measured: Callable[[int], tuple[Tensor, Tensor]],
    episodes: int,
    generators: tuple[torch.Generator, ...],
    network_draws: bool,
    on_progress: Callable[[int], None],
) -> tuple[Tensor, Tensor]:
    """Scores (rows, episodes) and labels (modes, episodes, queries) on the CPU, ``EPISODES_PER_DRAW`` episodes at a
    time; on a GPU as a CUDA graph."""
    full_draws = episodes // EPISODES_PER_DRAW
    draw: Callable[[], tuple[Tensor, Tensor]] = partial(measured, EPISODES_PER_DRAW)
    if generators[0].device.type == "cuda" and not network_draws and full_draws >= RECORD_FROM:
        draw = Recording(draw, *generators)
    parts: list[list[Tensor]] = []
    for done in range(1, full_draws + 1):
        parts.append([tensor.to("cpu", copy=True) for tensor in draw()])
        on_progress(done * EPISODES_PER_DRAW)
    if rest := episodes % EPISODES_PER_DRAW:
        parts.append([tensor.cpu() for tensor in measured(rest)])
        on_progress(episodes)
    scores, labels = (torch.cat(each, dim=1) for each in zip(*parts, strict=True))
    return scores, labels


def _rows(predictions: Predictions, y: Tensor, scale: Scale | None) -> list[Tensor]:
    """Return (T,) float64 scores, one tensor per measure.

    For classes, the accuracy in each of ``MODES`` that applies; for functions, the error after and before adaptation,
    and both once more in the units of the table if there is a ``scale``.
    """
    if predictions.before is None:
        return [scores(labels, y) for labels in _labels(predictions)]
    both = [predictions.inductive, predictions.before]
    rows = [scores(values, y) for values in both]
    if scale is None:
        return rows
    own_y = scale.own_y(y.double())
    return [*rows, *(scores(scale.own_y(values.double()), own_y) for values in both)]


def _labels(predictions: Predictions) -> list[Tensor]:
    """Return the (T, Q) labels in each of ``MODES`` that applies."""
    modes = (predictions.transductive, predictions.inductive)
    return [labels for labels in modes if labels is not None]
