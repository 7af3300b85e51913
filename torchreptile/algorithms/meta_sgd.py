"""Meta-SGD (Li, Zhou, Chen, Li 2017): MAML with a meta-learned inner learning rate for every weight."""

from __future__ import annotations

from typing import final

import torch

from torchreptile.algorithms.maml_base import MAMLBase
from torchreptile.algorithms.optim.differentiable_sgd import Rates
from torchreptile.models.built_in import Params

PREFIX = "inner_lr."  # before a weight's name: the name of its rate


@final
class MetaSGD(MAMLBase):
    """Meta-SGD: MAML whose inner learning rates alpha, one per weight, are meta-learned too.

        phi_task = phi - alpha * d L_support(phi) / d phi          (elementwise)
        (phi, alpha) <- (phi, alpha) - outer step size * mean over tasks of d L_query(phi_task) / d (phi, alpha)

    The rates may become negative, so they set the direction of a step as well as its length. Li, Zhou, Chen, Li 2017
    (arXiv 1707.09835), algorithm 1.
    """

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """Return the initial rates: ``inner_lr`` for every weight."""
        lr = self.config.inner.inner_lr
        return {PREFIX + name: torch.full_like(p, lr) for name, p in network_params.items()}

    def rates(self, params: Params) -> Rates:
        """Return the meta-learned rates by the names of their weights."""
        return {name.removeprefix(PREFIX): p for name, p in params.items() if name.startswith(PREFIX)}

    def weights(self, params: Params) -> Params:
        """Return the network's weights: all parameters but the rates."""
        return {name: p for name, p in params.items() if not name.startswith(PREFIX)}

    def named_rates(self, of_rates: Params) -> Params:
        """Return the gradients of the rates by the names of the rates."""
        return {PREFIX + name: g for name, g in of_rates.items()}
