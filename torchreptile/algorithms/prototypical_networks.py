"""Prototypical Networks (Snell, Swersky, Zemel 2017): a query gets the label of the nearest class mean."""

from __future__ import annotations

from typing import final

from torch import Tensor

from torchreptile.algorithms.metric_based import MetricBased
from torchreptile.models.built_in import Params


@final
class PrototypicalNetworks(MetricBased):
    """Prototypical Networks: classify queries by their distance to the prototypes, the mean embeddings of the classes.

        c_k = mean of f(x) over the support images of class k
        p(y = k | x) = softmax over classes of -|f(x) - c_k|^2

    Snell, Swersky, Zemel 2017 (arXiv 1703.05175), equations 1 and 2. Training tasks have more classes than test tasks
    (``train_way``; section 2.7).
    """

    def remember(self, params: Params, support: Tensor, classes: Tensor, drawn: Tensor) -> Params:
        """Return the prototypes (T, way, E) by the name "prototypes"."""
        return {"prototypes": prototypes(support, classes)}

    def label(self, params: Params, remembered: Params, query: Tensor) -> Tensor:
        """Return minus the squared distances to the prototypes: (T, Q, E) -> (T, Q, way)."""
        return -squared_distances(query, remembered["prototypes"])


def prototypes(support: Tensor, classes: Tensor) -> Tensor:
    """Return the mean embedding of each class, (T, way, E).

    Args:
        support: (T, S, E) embeddings.
        classes: (T, S, way) 1 where an image is of a class, else 0.

    Example:
        >>> import torch
        >>> support = torch.tensor([[[0.0], [2.0], [5.0]]])
        >>> classes = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
        >>> prototypes(support, classes)
        tensor([[[1.],
                 [5.]]])
    """
    return classes.transpose(1, 2) @ support / classes.sum(1).unsqueeze(2)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return the squared Euclidean distances: (T, Q, E), (T, N, E) -> (T, Q, N).

    They are computed as ``|x|^2 - 2 xy + |y|^2``, without differences of shape (T, Q, N, E). Both are shifted by the
    mean of y first, because far from 0 the terms would be large and their sum small.

    Example:
        >>> import torch
        >>> squared_distances(torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[3.0, 4.0], [0.0, 1.0]]]))
        tensor([[[25.,  1.]]])
    """
    origin = y.detach().mean(1, keepdim=True)
    x, y = x - origin, y - origin
    return x.square().sum(2, keepdim=True) - 2 * x @ y.transpose(1, 2) + y.square().sum(2).unsqueeze(1)
