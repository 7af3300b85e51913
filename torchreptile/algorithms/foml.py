"""First-order MAML as the Reptile paper compares it: the update is the last inner step's change alone.

With a shared tail (``foml_tail`` 0) the last mini-batch comes from the same stream as the others. With a
separate tail, ``foml_tail`` images per class are kept apart and make the last mini-batch, as MAML's
query set does. Nichol, Achiam, Schulman 2018, section 6.3.
"""

from __future__ import annotations

from itertools import islice
from typing import final

import torch
from torch import Tensor

from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.algorithms.optim.inner_loop import InnerState, Params
from torchreptile.algorithms.reptile_base import ReptileBase
from torchreptile.algorithms.rows.foml import FOMLSettings
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Sampler, Store, sampler_of


@final
class FOML(ReptileBase):
    """The change of the last inner step."""

    @property
    def drawn_steps(self) -> int:
        """All of them, but for a separate tail."""
        return self.config.inner.inner_steps - (1 if self.config.own(FOMLSettings).foml_tail else 0)

    def sampler(self, store: Store) -> Sampler:
        """Training tasks carry the separate tail as their query set."""
        tail = self.config.own(FOMLSettings).foml_tail
        return sampler_of(store, self.config.task.way, self.config.task.images_per_class - tail, queries=tail)

    def train(
        self, phi: Params, params: Params, inner: InnerState, episodes: Episodes, drawn: Tensor
    ) -> tuple[Params, Tensor]:
        """The change is measured from where the last step begins."""
        batches = take_batches(episodes.support_x, episodes.support_y, drawn)
        losses = []
        if self.config.inner.inner_steps > 1:
            losses.append(self.inner_loop.run(params, inner, islice(batches, self.config.inner.inner_steps - 1)))
        before_last = {name: p.clone() for name, p in params.items()}
        if not self.config.own(FOMLSettings).foml_tail:
            losses.append(self.inner_loop.run(params, inner, batches))
            return before_last, torch.cat(losses)
        its = inner.rescaled(episodes.query_y.shape[1])  # the tail is a mini-batch of another size
        losses.append(self.inner_loop.run(params, its, [(episodes.query_x, episodes.query_y)]))
        for name, v in its.rescaled(inner.images).v.items():
            inner.v[name].copy_(v)
        return before_last, torch.cat(losses)
