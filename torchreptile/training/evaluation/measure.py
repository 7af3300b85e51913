"""Accuracy, or error, of an algorithm over episodes."""

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
from torchreptile.training.evaluation.results import MODES as MODES
from torchreptile.training.evaluation.results import Accuracy as Accuracy
from torchreptile.training.evaluation.results import Fit as Fit
from torchreptile.training.evaluation.results import Measured as Measured
from torchreptile.training.evaluation.results import Result as Result
from torchreptile.training.evaluation.results import SquaredError

# Episodes drawn at a time. A constant, because the size of a draw decides which random numbers it gets:
# the first 1,000 of 10,000 episodes are the same as 1,000 episodes with the same seed.
EPISODES_PER_DRAW = 100
RECORD_FROM = 5  # draws from which a GPU repays recording one


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
        algorithm: how to adapt and predict.
        state: left as it was.
        sampler: of evaluation episodes, with a query set.
        episodes: how many, at least 2.
        seed: the same seed gives the same episodes and mini-batches.
        on_progress: called with the number of episodes done.
    """
    generator = torch.Generator(sampler.store.device).manual_seed(seed)
    further = algorithm.further(sampler.store)

    def scored(tasks: int) -> Tensor:
        """(rows, tasks) how good the answers to each episode are: see :func:`_rows`; then the further measures."""
        with algorithm.execution.claim():
            drawn = sampler.sample(EPISODES_PER_DRAW, generator)[:tasks]
            predictions = algorithm.predict(state, drawn, generator)
        rows = torch.stack(_rows(predictions, drawn.query_y, sampler.scale))
        if further is not None:
            its = further.sampler.sample(EPISODES_PER_DRAW, generator)[:tasks]
            rows = torch.cat([rows, algorithm.measure_extra(state, its, generator).double()])
        return rows

    whole_draws = episodes // EPISODES_PER_DRAW
    on_gpu, draws = generator.device.type == "cuda", algorithm.execution.draws
    record = on_gpu and not draws and whole_draws >= RECORD_FROM
    draw: Callable[[], Tensor] = partial(scored, EPISODES_PER_DRAW)
    if record:
        draw = Recording(draw, generator)
    parts: list[Tensor] = []
    for done in range(1, whole_draws + 1):
        parts.append(draw().to("cpu", copy=True))
        on_progress(done * EPISODES_PER_DRAW)
    if rest := episodes % EPISODES_PER_DRAW:
        parts.append(scored(rest).cpu())
        on_progress(episodes)
    rows = list(torch.cat(parts, dim=1))
    if algorithm.config.task.regression:
        return Fit(*(SquaredError.over(per_episode) for per_episode in rows))
    accuracies = [Accuracy.over(per_episode) for per_episode in rows]
    both = [accuracies.pop(0) if mode == "inductive" or algorithm.transduces else None for mode in MODES]
    assert both[1] is not None
    return Result(both[0], both[1], dict(zip(further.names, accuracies, strict=True)) if further is not None else {})


def _rows(predictions: Predictions, y: Tensor, scale: Scale | None) -> list[Tensor]:
    """(T,) scores each, float64: of labels those of MODES that apply; of values the error after and before adaptation,
    and the same in units of their own."""
    if predictions.before is None:
        labels = [predictions.transductive] if predictions.transductive is not None else []
        return [scores(label, y) for label in [*labels, predictions.inductive]]
    both = [predictions.inductive, predictions.before]
    rows = [scores(values, y) for values in both]
    if scale is None:
        return rows
    own_y = scale.own_y(y.double())
    return [*rows, *(scores(scale.own_y(values.double()), own_y) for values in both)]
