"""The base of Reptile and FOML: the meta-gradient is a change that inner steps made to the weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch
from torch import Tensor

from torchreptile.algorithms.base import Adapted
from torchreptile.algorithms.gradient_based import AdaptedNetwork, GradientBased, take_batches
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState, as_if_in_sequence
from torchreptile.core.errors import ConfigError
from torchreptile.data.episodes import Episodes
from torchreptile.data.minibatches import minibatches
from torchreptile.models.built_in import Params
from torchreptile.models.execution.execution import sum_over_tasks


@dataclass(frozen=True, eq=False)
class Stage:
    """A snapshot during adaptation.

    Attributes:
        steps: inner steps taken so far.
        losses: (steps since the last stage, T) loss of each step on its mini-batch, before the step.
        learner: adapted so far; valid until the next stage, which trains its weights in place.
    """

    steps: int
    losses: Tensor
    learner: Adapted


class ReptileBase(GradientBased):
    """Runs the inner loops of T tasks in parallel and averages the changes they make.

        gradient = mean over tasks of (anchor - phi_task)

    where phi_task are the weights after the inner steps, and the anchor those that the change is measured from. Nothing
    is differentiated through the inner steps.
    """

    @property
    @abstractmethod
    def drawn_steps(self) -> int:
        """Number of inner steps whose mini-batches are drawn from the support set."""

    @abstractmethod
    def train(
        self, phi: Params, params: Params, inner: InnerState, episodes: Episodes, drawn: Tensor
    ) -> tuple[Params, Tensor]:
        """Run the inner loops of T tasks, changing ``params`` and ``inner`` in place.

        Args:
            phi: the initial weights by name.
            params: T stacked copies of the initial weights, (T, ...) each.
            inner: T stacked copies of the inner optimiser's state.
            episodes: T tasks.
            drawn: (T, drawn_steps, B) indices of mini-batches of the support sets.

        Returns:
            The anchor, from which the change is measured, stacked or not; and the losses (steps, T).
        """

    def stages(
        self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor, stops: Sequence[int]
    ) -> Iterator[Stage]:
        """Adapt to T support sets, and yield a snapshot after each number of inner steps in ``stops``.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, C, H, W) images, or (T, S, inputs) points.
            support_y: (T, S) labels, or (T, S, targets) values.
            drawn: (T, steps, B) indices of mini-batches.
            stops: numbers of inner steps, ascending; 0 is before the first.
        """
        params, inner = self.copies_for(state, drawn)
        batches, done = take_batches(support_x, support_y, drawn), 0
        for stop in stops:
            taken = list(islice(batches, stop - done))
            losses = self.inner_loop.run(params, inner, taken) if taken else support_x.new_zeros(0, len(support_x))
            done += len(taken)
            # One for each stage, because a learner may cache what follows from its weights.
            yield Stage(done, losses, AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x))

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """Return the mean over tasks of anchor - phi_task.

        Args:
            state: the state before; not modified.
            episodes: T training tasks.
            generator: draws the mini-batches.

        Raises:
            ConfigError: several processes share the tasks, but the inner optimiser's state is carried between tasks.
        """
        settings, (tasks, images) = self.config.inner, episodes.support_y.shape[:2]
        # Every process draws the mini-batches of all tasks, so that their random numbers stay in step.
        drawn = minibatches(
            tasks, images, settings.inner_batch, self.drawn_steps, settings.replacement, generator
        )  # fmt: skip
        if settings.inner_state == "carry":
            with self.context.network_draws(generator):
                return self._one_after_another(state, episodes, drawn)
        start = self.start(state)
        self.fit_chunks(start, episodes)
        share = self.processes.share(tasks)
        with self.context.network_draws(generator):
            total = _sum(self.chunks.map(share, lambda part: self._changes(start, episodes[part], drawn[part])))
        tensors = [*total.gradient.values(), *total.inner.v.values(), total.loss]
        self.processes.sum_(tensors)
        torch._foreach_div_(tensors, tasks)
        inner = as_if_in_sequence(start.inner, total.inner, tasks) if settings.inner_state == "share" else state.inner
        return MetaGradient(total.gradient, inner, total.loss)

    def _one_after_another(self, state: MetaState, episodes: Episodes, drawn: Tensor) -> MetaGradient:
        """Return the meta-gradient in the original order: each task starts with the second moment of the one before."""
        if self.processes.size > 1:
            raise ConfigError("inner_state carry runs one task after another; several processes need share or reset")
        inner, parts = state.inner, []
        for task in range(len(episodes)):
            part = slice(task, task + 1)
            parts.append(self._changes(replace(state, inner=inner), episodes[part], drawn[part]))
            inner = parts[-1].inner
        total = _sum(parts)
        torch._foreach_div_([*total.gradient.values(), total.loss], len(parts))
        return MetaGradient(total.gradient, inner, total.loss)

    def _changes(self, start: MetaState, episodes: Episodes, drawn: Tensor) -> MetaGradient:
        """Return change, second moment and loss, each summed over these tasks."""
        params, inner = self.inner_loop.stacked(start.params, start.inner, len(episodes))
        anchor, losses = self.train(start.params, params, inner, episodes, drawn)
        gradient = {name: sum_over_tasks(params[name] - p).neg_() for name, p in anchor.items()}
        moments = {name: sum_over_tasks(v) for name, v in inner.v.items()}
        return MetaGradient(gradient, replace(inner, v=moments), losses.mean(0).sum())


def _sum(parts: Sequence[MetaGradient]) -> MetaGradient:
    """Return the sums of gradients, second moments and losses; ``steps`` is the same in all parts."""
    if len(parts) == 1:
        return parts[0]
    gradient = {name: torch.stack([part.gradient[name] for part in parts]).sum(0) for name in parts[0].gradient}
    v = {name: torch.stack([part.inner.v[name] for part in parts]).sum(0) for name in parts[0].inner.v}
    return MetaGradient(gradient, replace(parts[0].inner, v=v), torch.stack([part.loss for part in parts]).sum())
