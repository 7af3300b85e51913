"""The frame of algorithms whose meta-gradient is the gradient of a loss: how badly a task's queries were labelled."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm, MetaGradient, MetaState
from torchreptile.episodes import Episodes
from torchreptile.inner import Params


class ByLoss(Algorithm):
    """Differentiates each task's loss, piece by piece of the meta-batch, and averages."""

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

    def averages_after(self, averages: Params, measured: Params) -> Params:
        """The state's averages after a meta-batch, of whose tasks ``measured`` is the mean."""
        return averages

    def training_draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """The random numbers that ``tasks`` training tasks take, (T, ...): by default none."""
        return torch.empty(tasks, 0, device=generator.device)

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """The mean over tasks of the gradient of their losses."""
        tasks, images = episodes.support_y.shape
        drawn = self.training_draw(tasks, images, generator)
        self.fit_chunks(state, episodes)
        total = {name: torch.zeros_like(p) for name, p in state.params.items()}
        loss = torch.zeros((), dtype=torch.float64, device=episodes.support_y.device)
        measured = {name: torch.zeros_like(average) for name, average in state.averages.items()}
        with self.own_draws(generator):
            pieces = self.chunks.map(
                self.processes.share(tasks), lambda part: self.gradient(state.params, episodes[part], drawn[part])
            )
        for gradient, its_loss, its_averages in pieces:
            torch._foreach_add_(list(total.values()), [gradient[name] for name in total])
            loss += its_loss
            for name, its in measured.items():
                its += its_averages[name]
        means = [*total.values(), *measured.values()]
        self.processes.sum_([*means, loss])
        torch._foreach_div_(means, tasks)
        return MetaGradient(total, state.inner, loss / tasks, self.averages_after(state.averages, measured))

    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> tuple[Params, Tensor, Params]:
        """The gradient of the sum of these tasks' losses, that sum, (), and the sum of what averages are made of."""
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            losses, averages = self.losses_and_averages(leaves, episodes, drawn)
            loss = losses.sum()
        gradient = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, gradient, strict=True)), loss.detach(), averages
