"""The base of algorithms whose meta-gradient is the mean over tasks of a gradient."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.data.episodes import Episodes
from torchreptile.models.built_in import Params


@dataclass(frozen=True, eq=False)
class TaskSums:
    """Gradient, loss and statistics of a chunk of tasks, each summed over the tasks.

    Attributes:
        gradient: of the tasks' losses, shaped like the parameters.
        loss: () for the log.
        averages: statistics by name, shaped like the state's averages.
    """

    gradient: Params
    loss: Tensor
    averages: Params = field(default_factory=dict)


class TaskGradient(Algorithm):
    """Averages the gradients of training tasks, computed in chunks and divided among processes.

    gradient = mean over tasks of the gradient of the task's loss
    """

    @abstractmethod
    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> TaskSums:
        """Return the gradient of the sum of these tasks' losses, with the losses and statistics.

        Args:
            params: what is meta-learned, by name.
            episodes: T training tasks.
            drawn: (T, ...) random numbers from :meth:`training_draw` for these tasks.
        """

    def training_draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """Draw the random numbers of T training tasks, (T, ...): by default none.

        Args:
            tasks: T.
            images: in each support set.
            generator: draws the numbers.
        """
        return torch.empty(tasks, 0, device=generator.device)

    def averages_after(self, averages: Params, measured: Params) -> Params:
        """Return the state's averages after a meta-batch whose mean statistics are ``measured``."""
        return averages

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """Return the mean over tasks of the gradient of their losses.

        Args:
            state: the state before; not modified.
            episodes: T training tasks.
            generator: draws the random numbers of the tasks.
        """
        tasks, images = episodes.support_y.shape[:2]
        drawn = self.training_draw(tasks, images, generator)
        self.fit_chunks(state, episodes)
        total = {name: torch.zeros_like(p) for name, p in state.params.items()}
        loss = torch.zeros((), dtype=torch.float64, device=episodes.support_y.device)
        measured = {name: torch.zeros_like(average) for name, average in state.averages.items()}
        with self.context.network_draws(generator):
            chunks = self.chunks.map(
                self.processes.share(tasks), lambda part: self.gradient(state.params, episodes[part], drawn[part])
            )
        for sums in chunks:
            torch._foreach_add_(list(total.values()), [sums.gradient[name] for name in total])
            loss += sums.loss
            for name, its in measured.items():
                its += sums.averages[name]
        means = [*total.values(), *measured.values()]
        self.processes.sum_([*means, loss])
        torch._foreach_div_(means, tasks)
        return MetaGradient(total, state.inner, loss / tasks, self.averages_after(state.averages, measured))


class LossGradient(TaskGradient):
    """Differentiates the tasks' losses by autograd."""

    @abstractmethod
    def losses(self, params: Params, episodes: Episodes, drawn: Tensor) -> Tensor:
        """Return the loss of each task, (T,), differentiable in ``params``.

        Args:
            params: what is meta-learned, by name; leaves of the graph.
            episodes: T training tasks.
            drawn: (T, ...) random numbers from :meth:`training_draw` for these tasks.
        """

    def losses_and_averages(self, params: Params, episodes: Episodes, drawn: Tensor) -> tuple[Tensor, Params]:
        """Return the loss of each task (T,), and statistics for the state's averages, summed over tasks: {} by default.

        Args:
            params: what is meta-learned, by name; leaves of the graph.
            episodes: T training tasks.
            drawn: (T, ...) random numbers from :meth:`training_draw` for these tasks.
        """
        return self.losses(params, episodes, drawn), {}

    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> TaskSums:
        """Return the gradient of the sum of these tasks' losses by autograd, with the losses and statistics."""
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            losses, averages = self.losses_and_averages(leaves, episodes, drawn)
            loss = losses.sum()
        gradient = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return TaskSums(dict(zip(leaves, gradient, strict=True)), loss.detach(), averages)
