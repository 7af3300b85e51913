"""Matching Networks (Vinyals et al. 2016): attention over the support set labels the queries."""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from torchreptile.algorithms.metric_based import MetricBased
from torchreptile.algorithms.rows.matching_networks import MatchingSettings
from torchreptile.models.built_in import Params
from torchreptile.models.full_context_embedding import FullContextEmbedding

PREFIX = "fce."  # of the names of the full context embeddings' parameters


@final
class MatchingNetworks(MetricBased):
    """Matching Networks: the label of a query is the mean of the support labels, weighted by attention.

        P(y | x, S) = sum over i of a(x, x_i) y_i,    a = softmax over i of scale * cosine of f(x) and g(x_i)

    f and g are the same embedding. Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016 (arXiv 1606.04080), section
    2.1, equation 1, where the scale is 1. With ``fce_reads`` both embeddings are conditioned on the support set
    (section 2.1.2), whose order then matters: it is the order in which the images are given.
    """

    def label(self, params: Params, remembered: Params, query: Tensor) -> Tensor:
        """Return the logarithm of the attention on each class, up to a constant: (T, Q, E) -> (T, Q, way)."""
        support, classes = remembered["support"], remembered["classes"]
        if reads := self.config.own(MatchingSettings).fce_reads:
            own = {name.removeprefix(PREFIX): p for name, p in params.items() if name.startswith(PREFIX)}
            support, query = functional_call(self._full_context, own, (support, query, reads))
        return class_attention(self.config.own(MatchingSettings).attention_scale * cosines(query, support), classes)

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """Return fresh parameters of the full context embeddings, if ``fce_reads`` is set."""
        if not self.config.own(MatchingSettings).fce_reads:
            return {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = FullContextEmbedding(self.width)
        like = next(iter(network_params.values()))
        return {PREFIX + name: p.detach().to(like) for name, p in fresh.named_parameters()}

    @cached_property
    def _full_context(self) -> FullContextEmbedding:
        """The architecture of the full context embeddings; its own weights are never used."""
        return FullContextEmbedding(self.width)


def cosines(query: Tensor, support: Tensor) -> Tensor:
    """Return the cosine similarities of embeddings: (T, Q, E), (T, S, E) -> (T, Q, S)."""
    return F.normalize(query, dim=2) @ F.normalize(support, dim=2).transpose(1, 2)


def class_attention(scores: Tensor, classes: Tensor) -> Tensor:
    """Return logits of classes whose softmax is the attention summed over the images of each class.

    Args:
        scores: (T, Q, S) scores of the support images, whose softmax is the attention.
        classes: (T, S, way) 1 where an image is of a class, else 0.

    Returns:
        (T, Q, way) the logarithm of the sum of exponentials over the images of each class.

    Example:
        >>> import torch
        >>> classes = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])  # two images of class 0, one of class 1
        >>> class_attention(torch.zeros(1, 1, 3), classes).softmax(2)
        tensor([[[0.6667, 0.3333]]])
    """
    others = (classes == 0).unsqueeze(1)  # (T, 1, S, way)
    return scores.unsqueeze(3).masked_fill(others, -torch.inf).logsumexp(2)
