"""A few episodes to look at, with the learner's answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.algorithms import build_algorithm
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.models.blueprint import Network
from torchreptile.training.weights import MetaWeights

SAMPLE_SEED = 2_000_003  # apart from the seeds of training, monitoring and evaluation
SHOWN = 4
SEARCHED = 100


@dataclass(frozen=True, eq=False)
class ShownEpisode:
    """One episode with its answers.

    Attributes:
        episode: a single task, (1, ...).
        predicted: (1, way * queries) int64.
        class_names: the way classes' names, in the order of the labels.
        sought: True if it was not simply the next one drawn, but looked for because of a wrong prediction.
    """

    episode: Episodes
    predicted: Tensor
    class_names: tuple[str, ...]
    sought: bool


def sample_episodes(learned: MetaWeights, store: ImageStore, network: Network | None = None) -> list[ShownEpisode]:
    """Draw a few episodes and let ``learned`` answer them, in the mode its settings select.

    They are the first ones drawn. If all of their predictions are right, the last gives way to the first
    episode with a wrong one, if there is any among the first hundred.

    Args:
        learned: weights, on the processor, and settings.
        store: the classes to draw from.
        network: what the weights belong to, if not the one published with the algorithm.

    Raises:
        DataError: too few classes or images.
        ConfigError: the weights are not those of the network.
    """
    # On the processor and by its own choice of execution: the pictures do not depend on the machine's GPU.
    config, here = learned.config.replace(execution="auto", device="cpu"), torch.device("cpu")
    sampler = EpisodeSampler(store, config.task.way, config.task.shots, config.evaluation.queries)
    algorithm = build_algorithm(config, store.image_shape, here, network=network)
    learned.require_fit(algorithm)
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    shown: list[ShownEpisode] = []
    for _ in range(0, SEARCHED, SHOWN):
        drawn = sampler.sample(SHOWN, generator)
        answers = algorithm.predict(learned.state, drawn, generator)
        predicted = answers.inductive
        if config.evaluation.transductive and answers.transductive is not None:
            predicted = answers.transductive
        wrong = (predicted != drawn.query_y).any(1)
        if not shown:
            shown = [_shown(drawn, predicted, task, store, sought=False) for task in range(SHOWN)]
        elif bool(wrong.any()):
            shown[-1] = _shown(drawn, predicted, int(wrong.int().argmax()), store, sought=True)
        if bool(wrong.any()):
            break
    return shown


def _shown(drawn: Episodes, predicted: Tensor, task: int, store: ImageStore, sought: bool) -> ShownEpisode:
    names = tuple(store.class_names[c] for c in drawn.classes[task].tolist())
    return ShownEpisode(drawn[task : task + 1], predicted[task : task + 1], names, sought)
