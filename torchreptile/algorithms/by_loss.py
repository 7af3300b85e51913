"""The frame of algorithms whose meta-gradient is the gradient of a loss: how badly a task's queries were labelled."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from torchreptile.algorithms.by_task import ByTask
from torchreptile.episodes import Episodes
from torchreptile.inner import Params


class ByLoss(ByTask):
    """Differentiates each task's loss by autograd."""

    @abstractmethod
    def losses(self, params: Params, episodes: Episodes, drawn: Tensor) -> Tensor:
        """The loss of each task, (T,), differentiable in ``params``.

        Args:
            params: what is meta-learned; leaves of the graph.
            episodes: T training tasks.
            drawn: what :meth:`training_draw` gave for them.
        """

    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> tuple[Params, Tensor]:
        """The gradient of the sum of these tasks' losses, and that sum, ()."""
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            loss = self.losses(leaves, episodes, drawn).sum()
        gradient = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradient, strict=True)), loss.detach()
