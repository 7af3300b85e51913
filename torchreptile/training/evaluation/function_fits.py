"""Functions fitted one by one: the error after every inner step, and the curves before and after all of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.algorithms import build_algorithm
from torchreptile.algorithms.base import Algorithm, MetaState
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Store, sampler_of
from torchreptile.models.blueprint import Network
from torchreptile.models.losses import scores
from torchreptile.training.evaluation.results import SquaredError
from torchreptile.training.weights import MetaWeights

SEED = 2_000_003  # apart from the seeds of training, monitoring and evaluation


@dataclass(frozen=True, eq=False)
class Fitted:
    """Some functions, fitted to their known points.

    Attributes:
        episodes: T of them, in the table's own units where it has any.
        before, after: (T, Q, targets) what was said of the query points before and after all inner steps.
        by_step: the squared error over all T, standardised if tables are, after 0, 1, 2, ... inner steps; of an
            algorithm whose steps cannot be told apart after none and all.
    """

    episodes: Episodes
    before: Tensor
    after: Tensor
    by_step: list[SquaredError]


def fit_functions(
    learned: MetaWeights, store: Store, functions: int, network: Network | None = None, seed: int = 0
) -> Fitted:
    """Draw functions from ``store`` and fit them as an evaluation does.

    Args:
        learned: weights, on the processor, and settings.
        store: of functions.
        functions: how many, at least 2.
        network: what the weights belong to, if not the one published.
        seed: of what is drawn.

    Raises:
        DataError: tasks have too few points.
        ConfigError: the weights are not those of the network.
    """
    config, here = learned.config.replace(execution="auto", device="cpu"), torch.device("cpu")
    sampler = sampler_of(store, config.task.way, config.task.shots, config.evaluation.queries)
    algorithm = build_algorithm(config, store.image_shape, here, network=network, targets=store.targets)
    learned.require_fit(algorithm)
    generator = torch.Generator().manual_seed(SEED + seed)
    episodes = sampler.sample(functions, generator)
    answered = answers_by_step(algorithm, learned.state, episodes, generator)
    errors = [SquaredError.over(scores(values, episodes.query_y)) for values in answered]
    before, after = answered[0], answered[-1]
    if (scale := sampler.scale) is not None:
        own_x, own_y = scale.own_x, scale.own_y
        before, after = own_y(before), own_y(after)
        episodes = Episodes(
            own_x(episodes.support_x), own_y(episodes.support_y),
            own_x(episodes.query_x), own_y(episodes.query_y), episodes.classes,
        )  # fmt: skip
    return Fitted(episodes, before, after, errors)


@torch.no_grad()
def answers_by_step(
    algorithm: Algorithm, state: MetaState, episodes: Episodes, generator: torch.Generator
) -> list[Tensor]:
    """What is said of the query points after 0, 1, 2, ... inner steps, (T, Q, targets) each; see :class:`Fitted`."""
    tasks, points = episodes.support_y.shape[:2]
    drawn = algorithm.draw(tasks, points, generator)
    parts = [drawn[:, :steps] for steps in range(1, drawn.shape[1] + 1)] or [drawn]
    learners = [algorithm.unadapted(state, episodes.support_x)]
    before = generator.get_state()
    for part in parts:
        generator.set_state(before)  # what a network draws itself is the same on every way: they are one way
        with algorithm.own_draws(generator):
            learners.append(algorithm.adapt(state, episodes.support_x, episodes.support_y, part))
    return [learner.inductive(episodes.query_x) for learner in learners]
