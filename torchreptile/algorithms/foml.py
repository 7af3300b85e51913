"""First-order MAML as in the Reptile paper (Nichol, Achiam, Schulman 2018): the update is the last inner step."""

from __future__ import annotations

from itertools import islice
from typing import final

import torch
from torch import Tensor

from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.algorithms.optim.inner_loop import InnerState
from torchreptile.algorithms.reptile_base import ReptileBase
from torchreptile.algorithms.rows.foml import FOMLSettings
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.models.built_in import Params


@final
class FOML(ReptileBase):
    """FOML, first-order MAML in Reptile's setting: the meta-gradient is the change of the last inner step alone.

        phi <- phi + outer step size * mean over tasks of (phi_k - phi_(k-1))

    phi_k are the weights after k = ``inner_steps`` inner steps from phi. With a shared tail (``foml_tail`` 0) the last
    mini-batch is drawn from the same images as the others. With a separate tail, ``foml_tail`` images per class are
    reserved for it, like MAML's query set. Nichol, Achiam, Schulman 2018 (arXiv 1803.02999), section 6.3.
    """

    @property
    def drawn_steps(self) -> int:
        """Number of inner steps whose mini-batches are drawn from the support set: all but a separate tail."""
        return self.config.inner.inner_steps - (1 if self.config.own(FOMLSettings).foml_tail else 0)

    def sampler(self, store: Store) -> Sampler:
        """Return a sampler of training tasks with the separate tail as their query set."""
        tail = self.config.own(FOMLSettings).foml_tail
        return sampler_of(store, self.config.task.way, self.config.task.images_per_class - tail, queries=tail)

    def train(
        self, phi: Params, params: Params, inner: InnerState, episodes: Episodes, drawn: Tensor
    ) -> tuple[Params, Tensor]:
        """Run all inner steps in place, and return the weights before the last step as the anchor, and the losses."""
        batches = take_batches(episodes.support_x, episodes.support_y, drawn)
        losses = []
        if self.config.inner.inner_steps > 1:
            losses.append(self.inner_loop.run(params, inner, islice(batches, self.config.inner.inner_steps - 1)))
        before_last = {name: p.clone() for name, p in params.items()}
        if not self.config.own(FOMLSettings).foml_tail:
            losses.append(self.inner_loop.run(params, inner, batches))
            return before_last, torch.cat(losses)
        its = inner.rescaled(episodes.query_y.shape[1])  # the tail is a mini-batch of a different size
        losses.append(self.inner_loop.run(params, its, [(episodes.query_x, episodes.query_y)]))
        for name, v in its.rescaled(inner.images).v.items():
            inner.v[name].copy_(v)
        return before_last, torch.cat(losses)
