"""Meta-SGD: MAML that learns, beside the weights, an inner learning rate for every one of them.

    phi_task = phi - alpha * d L_support(phi) / d phi          (by coordinate)

Both phi and alpha move by the gradient of the queries' loss, so alpha learns direction as well as length: it may turn
negative. Li, Zhou, Chen, Li 2017 (arXiv 1707.09835), algorithm 1.
"""

from __future__ import annotations

from typing import final

import torch

from torchreptile.algorithms.maml_base import MAMLBase
from torchreptile.algorithms.optim.differentiable_sgd import Rates
from torchreptile.algorithms.optim.inner_loop import Params

PREFIX = "inner_lr."  # a weight's rate is meta-learned under its name with this before it


@final
class MetaSGD(MAMLBase):
    """Second order, as many inner learning rates as weights."""

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """Every rate begins at ``inner_lr``."""
        lr = self.config.inner.inner_lr
        return {PREFIX + name: torch.full_like(p, lr) for name, p in network_params.items()}

    def rates(self, params: Params) -> Rates:
        """What was learned."""
        return {name.removeprefix(PREFIX): p for name, p in params.items() if name.startswith(PREFIX)}

    def weights(self, params: Params) -> Params:
        """All the rest."""
        return {name: p for name, p in params.items() if not name.startswith(PREFIX)}

    def named_rates(self, of_rates: Params) -> Params:
        """Under the names that the rates themselves have."""
        return {PREFIX + name: g for name, g in of_rates.items()}
