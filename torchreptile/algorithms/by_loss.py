"""The frame of algorithms whose meta-gradient is the gradient of a loss: how badly a task's queries were labelled."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from torchreptile.algorithms.by_task import ByTask, TaskSums
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

    def losses_and_averages(self, params: Params, episodes: Episodes, drawn: Tensor) -> tuple[Tensor, Params]:
        """The losses, and what these tasks say of the state's averages, summed over them: by default nothing."""
        return self.losses(params, episodes, drawn), {}

    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> TaskSums:
        """By autograd, through whatever the losses are made of."""
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            losses, averages = self.losses_and_averages(leaves, episodes, drawn)
            loss = losses.sum()
        gradient = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return TaskSums(dict(zip(leaves, gradient, strict=True)), loss.detach(), averages)
