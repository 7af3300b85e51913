"""Fits of single functions: the error after every inner step, and predictions before and after adaptation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Store, sampler_of
from torchreptile.models.blueprint import Network
from torchreptile.models.losses import scores
from torchreptile.training.evaluation.results import SquaredError
from torchreptile.training.weights import MetaWeights

SAMPLE_SEED = (
    2_000_003  # of the examples that reports show; differs from the seeds of training, monitoring and evaluation
)


@dataclass(frozen=True, eq=False)
class Fitted:
    """Functions fitted to their support points.

    Attributes:
        episodes: T functions, in the units of the table where there is one.
        before: (T, Q, targets) predictions for the query points before adaptation.
        after: (T, Q, targets) predictions for the query points after all inner steps.
        by_step: squared error over all T functions after 0, 1, 2, ... inner steps, standardised where the table is;
            for an algorithm without separate steps after none and all of them.
    """

    episodes: Episodes
    before: Tensor
    after: Tensor
    by_step: list[SquaredError]


def fit_functions(
    weights: MetaWeights, store: Store, functions: int, network: Network | None = None, seed: int = 0
) -> Fitted:
    """Draw functions from ``store`` and fit them as an evaluation does.

    Args:
        weights: meta-learned weights on the CPU.
        store: functions to draw from.
        functions: number of functions, at least 2.
        network: the network of the weights, if it is not the one published with the algorithm.
        seed: seed of functions, points and inner batches.

    Raises:
        DataError: tasks have too few points.
        ConfigError: the weights do not fit the network.
    """
    config, cpu = weights.config.replace(execution="auto", device="cpu"), torch.device("cpu")
    sampler = sampler_of(store, config.task.way, config.task.shots, config.evaluation.queries)
    algorithm = build_algorithm(config, store.image_shape, cpu, network=network, targets=store.targets)
    weights.require_fit(algorithm)
    generator = torch.Generator().manual_seed(SAMPLE_SEED + seed)
    episodes = sampler.sample(functions, generator)
    predictions = predictions_by_step(algorithm, weights.state, episodes, generator)
    errors = [SquaredError.over(scores(values, episodes.query_y)) for values in predictions]
    before, after = predictions[0], predictions[-1]
    if (scale := sampler.scale) is not None:
        own_x, own_y = scale.own_x, scale.own_y
        before, after = own_y(before), own_y(after)
        episodes = Episodes(
            own_x(episodes.support_x), own_y(episodes.support_y),
            own_x(episodes.query_x), own_y(episodes.query_y), episodes.classes,
        )  # fmt: skip
    return Fitted(episodes, before, after, errors)


@torch.no_grad()
def predictions_by_step(
    algorithm: Algorithm, state: MetaState, episodes: Episodes, generator: torch.Generator
) -> list[Tensor]:
    """Return (T, Q, targets) predictions for the query points after 0, 1, 2, ... inner steps.

    An algorithm without separate steps gives two entries: before and after adaptation.
    """
    tasks, points = episodes.support_y.shape[:2]
    drawn = algorithm.draw(tasks, points, generator)
    prefixes = [drawn[:, :steps] for steps in range(1, drawn.shape[1] + 1)] or [drawn]
    learners = [algorithm.unadapted(state, episodes.support_x)]
    generator_state = generator.get_state()
    for prefix in prefixes:
        generator.set_state(generator_state)  # a network that draws (Dropout) repeats its draws on every prefix
        with algorithm.context.network_draws(generator):
            learners.append(algorithm.adapt(state, episodes.support_x, episodes.support_y, prefix))
    return [learner.inductive(episodes.query_x) for learner in learners]
