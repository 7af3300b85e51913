"""Measure the accuracy, or the error, of an algorithm over freshly drawn episodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm, MetaState, Predictions
from torchreptile.core.cuda_graph import Recording
from torchreptile.data.functions.tables import Scale
from torchreptile.data.samplers import Sampler
from torchreptile.models.losses import scores
from torchreptile.training.evaluation.labels import MODES
from torchreptile.training.evaluation.results import Accuracy, Fit, Measured, Result, SquaredError

# Episodes drawn at a time. A constant, because the size of a draw decides which random numbers it gets:
# the first 1,000 of 10,000 episodes are the same as 1,000 episodes with the same seed.
EPISODES_PER_DRAW = 100
# Adaptation draws from a stream of its own. How many numbers it takes depends on algorithm, steps and mini-batches; from
# one common stream, every episode after the first draw would depend on them too.
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
    device = sampler.store.device
    generator = torch.Generator(device).manual_seed(seed)
    adaptation = torch.Generator(device).manual_seed(seed ^ ADAPTATION_STREAM)
    extra = algorithm.extra_metrics(sampler.store)

    def scored(tasks: int) -> Tensor:
        """(rows, tasks) scores of each episode: those of :func:`_rows`, then the extra metrics."""
        with algorithm.execution.claim():
            drawn = sampler.sample(EPISODES_PER_DRAW, generator)[:tasks]
            predictions = algorithm.predict(state, drawn, adaptation)
        rows = torch.stack(_rows(predictions, drawn.query_y, sampler.scale))
        if extra is not None:
            separate = extra.sampler.sample(EPISODES_PER_DRAW, adaptation)[:tasks]
            rows = torch.cat([rows, algorithm.measure_extra(state, separate, adaptation).double()])
        return rows

    rows = list(_in_draws(scored, episodes, (generator, adaptation), algorithm.execution.draws, on_progress))
    if algorithm.config.task.regression:
        return Fit(*(SquaredError.over(per_episode) for per_episode in rows))
    accuracies = [Accuracy.over(per_episode) for per_episode in rows]
    both = [accuracies.pop(0) if mode == "inductive" or algorithm.transduces else None for mode in MODES]
    assert both[1] is not None
    return Result(both[0], both[1], dict(zip(extra.names, accuracies, strict=True)) if extra is not None else {})


def _in_draws(
    scored: Callable[[int], Tensor],
    episodes: int,
    generators: tuple[torch.Generator, ...],
    network_draws: bool,
    on_progress: Callable[[int], None],
) -> Tensor:
    """(rows, episodes) scores on the CPU, ``EPISODES_PER_DRAW`` episodes at a time; on a GPU as a CUDA graph."""
    full_draws = episodes // EPISODES_PER_DRAW
    draw: Callable[[], Tensor] = partial(scored, EPISODES_PER_DRAW)
    if generators[0].device.type == "cuda" and not network_draws and full_draws >= RECORD_FROM:
        draw = Recording(draw, *generators)
    parts: list[Tensor] = []
    for done in range(1, full_draws + 1):
        parts.append(draw().to("cpu", copy=True))
        on_progress(done * EPISODES_PER_DRAW)
    if rest := episodes % EPISODES_PER_DRAW:
        parts.append(scored(rest).cpu())
        on_progress(episodes)
    return torch.cat(parts, dim=1)


def _rows(predictions: Predictions, y: Tensor, scale: Scale | None) -> list[Tensor]:
    """Return (T,) float64 scores, one tensor per measure.

    For classes, the accuracy in each of ``MODES`` that applies; for functions, the error after and before adaptation,
    and both once more in the units of the table if there is a ``scale``.
    """
    if predictions.before is None:
        labels = [predictions.transductive] if predictions.transductive is not None else []
        return [scores(label, y) for label in [*labels, predictions.inductive]]
    both = [predictions.inductive, predictions.before]
    rows = [scores(values, y) for values in both]
    if scale is None:
        return rows
    own_y = scale.own_y(y.double())
    return [*rows, *(scores(scale.own_y(values.double()), own_y) for values in both)]
