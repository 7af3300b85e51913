"""The frame of the first-order algorithms: the meta-gradient is a change that inner steps made to the weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from torchreptile.algorithms.base import Adapted, MetaGradient, MetaState
from torchreptile.algorithms.gradient_based import AdaptedNetwork, GradientBased, take_batches
from torchreptile.algorithms.optim.inner_loop import InnerState, Params
from torchreptile.core.errors import ConfigError
from torchreptile.data.episodes import Episodes
from torchreptile.data.minibatches import minibatches
from torchreptile.models.execution.execution import sum_over_tasks


@dataclass(frozen=True, eq=False)
class Stage:
    """A place on the way of adapting.

    Attributes:
        steps: inner steps done.
        losses: (steps since the last stage, T) their cross-entropies, each on its mini-batch and before the step.
        learner: as adapted so far; of no use once the next stage is asked for, which goes on with its weights.
    """

    steps: int
    losses: Tensor
    learner: Adapted


class ReptileBase(GradientBased):
    """Inner loops side by side, their changes averaged; nothing is differentiated through them."""

    @property
    @abstractmethod
    def drawn_steps(self) -> int:
        """Inner steps whose mini-batches come from the support set."""

    @abstractmethod
    def train(
        self, phi: Params, params: Params, inner: InnerState, episodes: Episodes, drawn: Tensor
    ) -> tuple[Params, Tensor]:
        """Run the inner loops of T tasks, changing ``params`` and ``inner`` in place.

        Args:
            phi: where they start.
            params, inner: T stacked copies of the start.
            episodes: T tasks.
            drawn: (T, drawn_steps, B) mini-batches of the support sets.

        Returns:
            The weights that the change is measured from, stacked or not, and the losses (steps, T).
        """

    def stages(
        self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor, stops: Sequence[int]
    ) -> Iterator[Stage]:
        """Adapt as :meth:`adapt` does, and stop on the way to look.

        Args:
            state, support_x, support_y, drawn: as for :meth:`adapt`.
            stops: after how many inner steps, ascending; 0 is before the first.
        """
        params, inner = self.copies_for(state, drawn)
        learner = AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)
        batches, done = take_batches(support_x, support_y, drawn), 0
        for stop in stops:
            taken = list(islice(batches, stop - done))
            losses = self.inner_loop.run(params, inner, taken) if taken else support_x.new_zeros(0, len(support_x))
            done += len(taken)
            yield Stage(done, losses, learner)

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """The mean over tasks of how far, and against which direction, inner steps moved the weights.

        Raises:
            ConfigError: the optimiser's state goes from task to task, but the tasks are shared among processes.
        """
        settings, (tasks, images) = self.config.inner, episodes.support_y.shape[:2]
        # Every process draws the mini-batches of all tasks, so that the stream of random numbers stays common.
        drawn = minibatches(
            tasks, images, settings.inner_batch, self.drawn_steps, settings.replacement, generator
        )  # fmt: skip
        if settings.inner_state == "carry":
            with self.own_draws(generator):
                return self._one_after_another(state, episodes, drawn)
        start = self.start(state)
        self.fit_chunks(start, episodes)
        share = self.processes.share(tasks)
        with self.own_draws(generator):
            total = _sum(self.chunks.map(share, lambda part: self._changes(start, episodes[part], drawn[part])))
        tensors = [*total.gradient.values(), *total.inner.v.values(), total.loss]
        self.processes.sum_(tensors)
        torch._foreach_div_(tensors, tasks)
        return total if settings.inner_state == "share" else MetaGradient(total.gradient, state.inner, total.loss)

    def _one_after_another(self, state: MetaState, episodes: Episodes, drawn: Tensor) -> MetaGradient:
        """The original order: each task starts from the second moment the previous one left behind."""
        if self.processes.size > 1:
            raise ConfigError("inner_state carry takes one task after another; several processes need share or reset")
        inner, parts = state.inner, []
        for task in range(len(episodes)):
            part = slice(task, task + 1)
            parts.append(self._changes(replace(state, inner=inner), episodes[part], drawn[part]))
            inner = parts[-1].inner
        total = _sum(parts)
        torch._foreach_div_([*total.gradient.values(), total.loss], len(parts))
        return MetaGradient(total.gradient, inner, total.loss)

    def _changes(self, start: MetaState, episodes: Episodes, drawn: Tensor) -> MetaGradient:
        """Sums over these tasks: of the change, of the second moment, of the loss."""
        params, inner = self.inner_loop.stacked(start.params, start.inner, len(episodes))
        anchor, losses = self.train(start.params, params, inner, episodes, drawn)
        gradient = {name: sum_over_tasks(params[name] - p).neg_() for name, p in anchor.items()}
        moments = {name: sum_over_tasks(v) for name, v in inner.v.items()}
        return MetaGradient(gradient, replace(inner, v=moments), losses.mean(0).sum())


def _sum(parts: Sequence[MetaGradient]) -> MetaGradient:
    """The sum of gradients, second moments and losses; ``steps`` is common to all."""
    if len(parts) == 1:
        return parts[0]
    gradient = {name: torch.stack([part.gradient[name] for part in parts]).sum(0) for name in parts[0].gradient}
    v = {name: torch.stack([part.inner.v[name] for part in parts]).sum(0) for name in parts[0].inner.v}
    return MetaGradient(gradient, replace(parts[0].inner, v=v), torch.stack([part.loss for part in parts]).sum())
