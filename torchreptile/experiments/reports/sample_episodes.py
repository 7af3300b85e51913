"""Sample episodes with their predictions, for reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.algorithms.build import build_algorithm
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.models.blueprint import Network
from torchreptile.training.evaluation.function_fits import SAMPLE_SEED
from torchreptile.training.weights import MetaWeights

SHOWN = 4
SEARCHED = 100


@dataclass(frozen=True, eq=False)
class ShownEpisode:
    """An episode with its predictions.

    Attributes:
        episode: a single task, (1, ...).
        predicted: (1, way * query) int64 labels.
        class_names: names of the classes, in the order of the labels.
        searched_for: whether the episode was chosen because it has a wrong prediction.
    """

    episode: Episodes
    predicted: Tensor
    class_names: tuple[str, ...]
    searched_for: bool


def sample_episodes(weights: MetaWeights, store: ImageStore, network: Network | None = None) -> list[ShownEpisode]:
    """Draw four episodes and predict their queries, in the mode that the settings select.

    If all predictions of the first four episodes are right, the last is replaced by the first episode with a wrong
    prediction, if there is one among the first hundred.

    Args:
        weights: meta-learned weights on the CPU, with their settings.
        store: images of the classes to draw from.
        network: builds the trained network, if it is not the one published with the algorithm.

    Raises:
        DataError: there are too few classes or images.
        ConfigError: the weights do not fit the network.

    Example:
        >>> from torchreptile.training.evaluation.evaluate import split_store
        >>> from torchreptile.training.weights import load_weights
        >>> weights = load_weights("glyphs-5way")
        >>> [len(shown.class_names) for shown in sample_episodes(weights, split_store(weights.config, "test"))]
        [5, 5, 5, 5]
    """
    # On the CPU with automatic execution, so that the pictures do not depend on the machine's GPU.
    config, cpu = weights.config.replace(execution="auto", device="cpu"), torch.device("cpu")
    sampler = EpisodeSampler(store, config.task.way, config.task.shots, config.evaluation.queries)
    algorithm = build_algorithm(config, store.image_shape, cpu, network=network)
    weights.require_fit(algorithm)
    generator = torch.Generator().manual_seed(SAMPLE_SEED)
    shown: list[ShownEpisode] = []
    for _ in range(0, SEARCHED, SHOWN):
        drawn = sampler.sample(SHOWN, generator)
        predictions = algorithm.predict(weights.state, drawn, generator)
        predicted = predictions.inductive
        if config.evaluation.transductive and predictions.transductive is not None:
            predicted = predictions.transductive
        wrong = (predicted != drawn.query_y).any(1)
        if not shown:
            shown = [_shown(drawn, predicted, task, store, searched_for=False) for task in range(SHOWN)]
        elif bool(wrong.any()):
            shown[-1] = _shown(drawn, predicted, int(wrong.int().argmax()), store, searched_for=True)
        if bool(wrong.any()):
            break
    return shown


def _shown(drawn: Episodes, predicted: Tensor, task: int, store: ImageStore, searched_for: bool) -> ShownEpisode:
    """Select one task of several drawn ones."""
    names = tuple(store.class_names[c] for c in drawn.classes[task].tolist())
    return ShownEpisode(drawn[task : task + 1], predicted[task : task + 1], names, searched_for)
