"""Reptile (Nichol, Achiam, Schulman 2018): move the initial weights towards the weights trained on each task."""

from __future__ import annotations

from typing import final

from torch import Tensor

from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.algorithms.optim.inner_loop import InnerState
from torchreptile.algorithms.reptile_base import ReptileBase
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.models.built_in import Params


@final
class Reptile(ReptileBase):
    """Reptile: train on each task, then move the initial weights phi towards the trained weights phi_task.

        phi <- phi + outer step size * mean over tasks of (phi_task - phi)

    phi_task are the weights after ``inner_steps`` steps of the inner optimiser from phi, so the meta-gradient is
    phi - mean(phi_task). Nichol, Achiam, Schulman 2018 (arXiv 1803.02999), algorithm 2 (batched version).
    """

    @property
    def drawn_steps(self) -> int:
        """Number of inner steps whose mini-batches are drawn from the support set: all of them."""
        return self.config.inner.inner_steps

    def sampler(self, store: Store) -> Sampler:
        """Return a sampler of training tasks with ``train_shots`` images per class, or points, and no query set."""
        return sampler_of(store, self.config.task.way, self.config.task.images_per_class, queries=0)

    def train(
        self, phi: Params, params: Params, inner: InnerState, episodes: Episodes, drawn: Tensor
    ) -> tuple[Params, Tensor]:
        """Run all inner steps in place, and return phi as the anchor and the losses (steps, T)."""
        return phi, self.inner_loop.run(params, inner, take_batches(episodes.support_x, episodes.support_y, drawn))
