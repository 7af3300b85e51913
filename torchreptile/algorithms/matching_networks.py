"""Matching Networks: a query's label is the labels of the support set, weighted by attention.

    P(y | x, S) = sum over i of a(x, x_i) y_i,    a = softmax over i of scale * cosine of f(x) and g(x_i)

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016, arXiv 1606.04080, section 2.1, equation 1, where the scale is
1. f and g are one embedding. With ``fce_reads`` both are conditioned on the whole support set (models/full_context.py),
which then has an order: the one it comes in.
"""

from __future__ import annotations

from functools import cached_property
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from torchreptile.algorithms.metric_based import MetricBased
from torchreptile.algorithms.optim.inner_loop import Params
from torchreptile.algorithms.rows.matching_networks import MatchingSettings
from torchreptile.models.full_context_embedding import FullContextEmbedding

PREFIX = "fce."  # of the full context embeddings' parameters


@final
class MatchingNetworks(MetricBased):
    """Cosine attention over the support set."""

    def label(self, params: Params, remembered: Params, query: Tensor) -> Tensor:
        """The logarithm of the attention that each class gets, up to a constant, (T, Q, way)."""
        support, classes = remembered["support"], remembered["classes"]
        if reads := self.config.own(MatchingSettings).fce_reads:
            own = {name.removeprefix(PREFIX): p for name, p in params.items() if name.startswith(PREFIX)}
            support, query = functional_call(self._full_context, own, (support, query, reads))
        return class_attention(self.config.own(MatchingSettings).attention_scale * cosines(query, support), classes)

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """Those of the full context embeddings, if wanted."""
        if not self.config.own(MatchingSettings).fce_reads:
            return {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = FullContextEmbedding(self.width)
        like = next(iter(network_params.values()))
        return {PREFIX + name: p.detach().to(like) for name, p in fresh.named_parameters()}

    @cached_property
    def _full_context(self) -> FullContextEmbedding:
        """The form alone; its weights are never used."""
        return FullContextEmbedding(self.width)


def cosines(query: Tensor, support: Tensor) -> Tensor:
    """(T, Q, E), (T, S, E) -> the cosines of their angles, (T, Q, S)."""
    return F.normalize(query, dim=2) @ F.normalize(support, dim=2).transpose(1, 2)


def class_attention(scores: Tensor, classes: Tensor) -> Tensor:
    """Scores of support images -> logits of classes, whose softmax is the attention summed over each class.

    Args:
        scores: (T, Q, S), of which the attention is the softmax over S.
        classes: (T, S, way) 1 where an image is of a class, else 0.

    Returns:
        (T, Q, way): the logarithm of the summed exponentials; the softmax over classes divides by what the softmax
        over images would have.
    """
    others = (classes == 0).unsqueeze(1)  # (T, 1, S, way)
    return scores.unsqueeze(3).masked_fill(others, -torch.inf).logsumexp(2)
