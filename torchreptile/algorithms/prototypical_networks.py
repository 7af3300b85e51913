"""Prototypical Networks: a query belongs to the class whose mean embedding is nearest.

    c_k = mean of f(x) over the support images of class k
    p(y = k | x) = softmax over classes of -|f(x) - c_k|^2

Snell, Swersky, Zemel 2017, arXiv 1703.05175, equations 1 and 2. Trained with more classes in a task than it is tested
with (``train_way``; section 2.7).
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from torchreptile.algorithms.metric_based import MetricBased
from torchreptile.algorithms.optim.inner_loop import Params


@final
class PrototypicalNetworks(MetricBased):
    """Squared Euclidean distances to class means."""

    def remember(self, params: Params, support: Tensor, classes: Tensor, drawn: Tensor) -> Params:
        """The class means."""
        return {"prototypes": prototypes(support, classes)}

    def label(self, params: Params, remembered: Params, query: Tensor) -> Tensor:
        """Minus the squared distances, (T, Q, way)."""
        return -squared_distances(query, remembered["prototypes"])


def prototypes(support: Tensor, classes: Tensor) -> Tensor:
    """(T, S, E) embeddings, (T, S, way) which class -> the classes' means (T, way, E)."""
    return classes.transpose(1, 2) @ support / classes.sum(1).unsqueeze(2)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(T, Q, E), (T, N, E) -> (T, Q, N).

    By |x|^2 - 2 xy + |y|^2, which needs no (T, Q, N, E) differences. Both are shifted by the mean of y first: far from
    0 the three terms would be large and their sum small.
    """
    origin = y.detach().mean(1, keepdim=True)
    x, y = x - origin, y - origin
    return x.square().sum(2, keepdim=True) - 2 * x @ y.transpose(1, 2) + y.square().sum(2).unsqueeze(1)
