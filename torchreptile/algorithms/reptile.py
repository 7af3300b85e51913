"""Reptile: train on each task, then move the initialisation towards where training went.

    phi <- phi + step size * mean over tasks of (phi_task - phi)

Nichol, Achiam, Schulman 2018, algorithm 2. The meta-gradient is therefore phi - mean(phi_task).
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.algorithms.optim.inner_loop import InnerState, Params
from torchreptile.algorithms.reptile_base import ReptileBase
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Sampler, Store, sampler_of


@final
class Reptile(ReptileBase):
    """The change of the whole inner loop."""

    @property
    def drawn_steps(self) -> int:
        """All of them."""
        return self.config.inner.inner_steps

    def sampler(self, store: Store) -> Sampler:
        """Training tasks are ``train_shots`` images per class, or points, with no query set."""
        return sampler_of(store, self.config.task.way, self.config.task.images_per_class, queries=0)

    def train(
        self, phi: Params, params: Params, inner: InnerState, episodes: Episodes, drawn: Tensor
    ) -> tuple[Params, Tensor]:
        """The change is measured from phi."""
        return phi, self.inner_loop.run(params, inner, take_batches(episodes.support_x, episodes.support_y, drawn))
