"""Accuracy over many episodes: transductive and not, mean and 95% confidence interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.algorithms import Algorithm, MetaState
from torchreptile.episodes import EpisodeSampler

# Episodes drawn at a time. A constant, because the size of a draw decides which random numbers it gets:
# the first 1,000 of 10,000 episodes are the same as 1,000 episodes with the same seed.
EPISODES_PER_DRAW = 20


@dataclass(frozen=True)
class Accuracy:
    """An accuracy over episodes.

    Attributes:
        mean: from 0 to 1.
        ci95: half the width of the 95% confidence interval of the mean, over episodes.
        episodes: how many.
    """

    mean: float
    ci95: float
    episodes: int

    @classmethod
    def over(cls, per_episode: Tensor) -> Accuracy:
        """From (episodes,) accuracies, each from 0 to 1; normal approximation, sample standard deviation."""
        n = len(per_episode)
        return cls(float(per_episode.mean()), 1.96 * float(per_episode.std()) / math.sqrt(n), n)

    def __str__(self) -> str:
        """For people: ``97.68% +- 0.09``."""
        return f"{100 * self.mean:.2f}% ± {100 * self.ci95:.2f}"


@dataclass(frozen=True)
class Result:
    """Both accuracies over the same episodes, adapted once."""

    transductive: Accuracy
    non_transductive: Accuracy

    def selected(self, transductive: bool) -> Accuracy:
        """The one or the other."""
        return self.transductive if transductive else self.non_transductive


def measure(
    algorithm: Algorithm,
    state: MetaState,
    sampler: EpisodeSampler,
    episodes: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Measure ``state`` on freshly drawn episodes.

    Args:
        algorithm: how to adapt and predict.
        state: left as it was.
        sampler: of evaluation episodes, with a query set.
        episodes: how many, at least 2.
        seed: the same seed gives the same episodes and mini-batches.
        on_progress: called with the number of episodes done.
    """
    generator = torch.Generator(sampler.store.images.device).manual_seed(seed)
    correct: dict[str, list[Tensor]] = {"transductive": [], "non_transductive": []}
    for done in range(0, episodes, EPISODES_PER_DRAW):
        batch = sampler.sample(EPISODES_PER_DRAW, generator)
        predictions = algorithm.predict(state, batch, generator)
        for mode, hits in correct.items():
            hits.append((getattr(predictions, mode) == batch.query_y).double().mean(1))
        on_progress(min(done + EPISODES_PER_DRAW, episodes))
    over = {mode: Accuracy.over(torch.cat(hits)[:episodes]) for mode, hits in correct.items()}
    return Result(**over)
