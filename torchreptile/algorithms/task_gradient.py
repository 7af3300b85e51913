"""The frame of algorithms whose meta-gradient is a mean over tasks of what each piece of the meta-batch gives."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm, MetaGradient, MetaState
from torchreptile.algorithms.optim.inner_loop import Params
from torchreptile.data.episodes import Episodes


@dataclass(frozen=True, eq=False)
class TaskSums:
    """What a piece of the meta-batch gives, summed over its tasks.

    Attributes:
        gradient: of their losses, shaped like the parameters.
        loss: (), for people.
        averages: what they say of the state's averages, by the same names.
    """

    gradient: Params
    loss: Tensor
    averages: Params = field(default_factory=dict)


class TaskGradient(Algorithm):
    """Draws for all tasks, takes them piece by piece, shares them among processes, and averages."""

    @abstractmethod
    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> TaskSums:
        """The gradient of the sum of these tasks' losses, and what goes with it.

        Args:
            params: what is meta-learned.
            episodes: T training tasks.
            drawn: what :meth:`training_draw` gave for them.
        """

    def training_draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """The random numbers that ``tasks`` training tasks take, (T, ...): by default none."""
        return torch.empty(tasks, 0, device=generator.device)

    def averages_after(self, averages: Params, measured: Params) -> Params:
        """The state's averages after a meta-batch, of whose tasks ``measured`` is the mean."""
        return averages

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """The mean over tasks of the gradient of their losses."""
        tasks, images = episodes.support_y.shape[:2]
        drawn = self.training_draw(tasks, images, generator)
        self.fit_chunks(state, episodes)
        total = {name: torch.zeros_like(p) for name, p in state.params.items()}
        loss = torch.zeros((), dtype=torch.float64, device=episodes.support_y.device)
        measured = {name: torch.zeros_like(average) for name, average in state.averages.items()}
        with self.own_draws(generator):
            pieces = self.chunks.map(
                self.processes.share(tasks), lambda part: self.gradient(state.params, episodes[part], drawn[part])
            )
        for sums in pieces:
            torch._foreach_add_(list(total.values()), [sums.gradient[name] for name in total])
            loss += sums.loss
            for name, its in measured.items():
                its += sums.averages[name]
        means = [*total.values(), *measured.values()]
        self.processes.sum_([*means, loss])
        torch._foreach_div_(means, tasks)
        return MetaGradient(total, state.inner, loss / tasks, self.averages_after(state.averages, measured))


class LossGradient(TaskGradient):
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
