"""From scratch: a freshly drawn network is trained on the support set alone. What meta-learning buys shows against it.

The network, the optimiser and the steps of an evaluation episode are Reptile's; training does nothing.
"""

from __future__ import annotations

from typing import final

import torch

from torchreptile.algorithms.base import MetaGradient, MetaState
from torchreptile.algorithms.gradient_based import GradientBased
from torchreptile.data.episodes import Episodes


@final
class Scratch(GradientBased):
    """Leaves the weights as they were drawn."""

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """None."""
        nothing = {name: torch.zeros_like(p) for name, p in state.params.items()}
        loss = torch.zeros((), dtype=torch.float64, device=episodes.support_y.device)
        return MetaGradient(nothing, state.inner, loss)
