"""Training from scratch on every support set: the baseline that shows what meta-learning gains."""

from __future__ import annotations

from typing import final

import torch

from torchreptile.algorithms.gradient_based import GradientBased
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.data.episodes import Episodes


@final
class Scratch(GradientBased):
    """Training from scratch: freshly drawn weights are trained on the support set, without meta-learning.

        phi <- phi

    Network, inner optimiser and inner steps of an evaluation episode are Reptile's.
    """

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """Return a meta-gradient of zeros."""
        nothing = {name: torch.zeros_like(p) for name, p in state.params.items()}
        loss = torch.zeros((), dtype=torch.float64, device=episodes.support_y.device)
        return MetaGradient(nothing, state.inner, loss)
