"""Class-balanced inner mini-batches: images of small classes are drawn as often as those of large ones."""

from __future__ import annotations

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm


def draw_for(algorithm: Algorithm, labels: Tensor, balanced: bool, generator: torch.Generator) -> Tensor:
    """Draw the random numbers for adapting to one support set, in balanced mini-batches if asked for.

    Args:
        algorithm: adapts to the support set.
        labels: (N,) int64 labels from 0 to K - 1.
        balanced: draw every class equally often. Where classes are equally large, or the algorithm draws no
            mini-batches, it makes no difference.
        generator: source of all randomness.

    Returns:
        (1, ...) as from :meth:`Algorithm.draw`.
    """
    if not balanced or not algorithm.draws_minibatches:
        return algorithm.draw(1, len(labels), generator)
    members = evened(labels).to(generator.device)
    return members[algorithm.draw(1, len(members), generator)]


def evened(labels: Tensor) -> Tensor:
    """Return indices of images in which every class is as frequent as the largest.

    Args:
        labels: (N,) int64 labels from 0 to K - 1.

    Returns:
        (K * largest,) int64: every image once, in order, and then the images of the smaller classes again, in turn.

    Example:
        >>> evened(torch.tensor([0, 1, 1, 1, 2, 2])).tolist()
        [0, 1, 2, 3, 4, 5, 0, 0, 4]
    """
    its = [(labels == label).nonzero().flatten() for label in range(int(labels.max()) + 1)]
    largest = max(map(len, its))
    again = [images[torch.arange(largest - len(images)) % len(images)] for images in its]
    return torch.cat([torch.arange(len(labels)), *again])
