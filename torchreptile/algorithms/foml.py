"""First-order MAML as the Reptile paper compares it: the update is the last inner step's change alone.

With a shared tail (``foml_tail`` 0) the last mini-batch comes from the same stream as the others. With a
separate tail, ``foml_tail`` images per class are kept apart and make the last mini-batch, as MAML's
query set does. Nichol, Achiam, Schulman 2018, section 6.3.
"""

from __future__ import annotations

from typing import final

import torch

from torchreptile.algorithms.reptile import Reptile
from torchreptile.data.store import ImageStore
from torchreptile.episodes import Episodes, EpisodeSampler
from torchreptile.inner import InnerState, Params


@final
class FirstOrderMAML(Reptile):
    """Reptile's inner loops with MAML's view of them."""

    def sampler(self, store: ImageStore) -> EpisodeSampler:
        """Training tasks carry the separate tail as their query set."""
        tail = self.config.outer.foml_tail
        return EpisodeSampler(store, self.config.task.way, self.config.task.images_per_class - tail, queries=tail)

    def _train(
        self, params: Params, inner: InnerState, episodes: Episodes, generator: torch.Generator
    ) -> tuple[Params, torch.Tensor]:
        steps = self.config.inner.inner_steps
        if self.config.outer.foml_tail:
            body = self._batches(episodes, steps - 1, generator)
            tail = (episodes.query_x, episodes.query_y)
        else:
            *body, tail = self._batches(episodes, steps, generator)
        losses = [self.inner_loop.run(params, inner, body)] if body else []
        before_last = {name: p.clone() for name, p in params.items()}
        losses.append(self.inner_loop.run(params, inner, [tail]))
        return before_last, torch.cat(losses).mean()
