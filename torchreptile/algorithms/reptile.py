"""Reptile: train on each task, then move the initialisation towards where training went.

    phi <- phi + step size * mean over tasks of (phi_task - phi)

Nichol, Achiam, Schulman 2018, algorithm 2. The meta-gradient is therefore phi - mean(phi_task).
"""

from __future__ import annotations

import torch

from torchreptile.algorithms.base import GradientBased, MetaGradient, MetaState, take_batches
from torchreptile.data.store import ImageStore
from torchreptile.episodes import Episodes, EpisodeSampler
from torchreptile.inner import InnerState, Params, stack
from torchreptile.minibatches import minibatches


class Reptile(GradientBased):
    """Reptile, and the frame of inner loops that first-order MAML shares with it."""

    def sampler(self, store: ImageStore) -> EpisodeSampler:
        """Training tasks are ``train_shots`` images per class, with no query set."""
        return EpisodeSampler(store, self.config.task.way, self.config.task.images_per_class, queries=0)

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """The mean over tasks of how far, and against which direction, the inner loop moved phi."""
        policy = self.config.inner.inner_state
        if policy != "carry":
            return self._side_by_side(state, episodes, generator)
        # The original order: each task starts from the second moment the previous one left behind.
        inner, parts = state.inner, []
        for task in range(len(episodes)):
            parts.append(self._side_by_side(MetaState(state.params, inner), episodes[task : task + 1], generator))
            inner = parts[-1].inner
        gradient = {name: torch.stack([part.gradient[name] for part in parts]).mean(0) for name in state.params}
        return MetaGradient(gradient, inner, torch.stack([part.loss for part in parts]).mean())

    def _side_by_side(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        tasks = len(episodes)
        params, inner = stack(state.params, tasks), self._stacked_inner(state.inner, tasks)
        anchor, loss = self._train(params, inner, episodes, generator)
        gradient = {name: (start - params[name]).mean(0) for name, start in anchor.items()}
        carried = state.inner
        if self.config.inner.inner_state != "reset":
            carried = InnerState({name: v.mean(0) for name, v in inner.v.items()}, inner.steps)
        return MetaGradient(gradient, carried, loss)

    def _train(
        self, params: Params, inner: InnerState, episodes: Episodes, generator: torch.Generator
    ) -> tuple[Params, torch.Tensor]:
        """Run the inner loops in place; return the weights that the change is measured from, and the loss."""
        start = {name: p.clone() for name, p in params.items()}
        losses = self.inner_loop.run(params, inner, self._batches(episodes, self.config.inner.inner_steps, generator))
        return start, losses.mean()

    def _batches(
        self, episodes: Episodes, steps: int, generator: torch.Generator
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        settings = self.config.inner
        tasks, images = episodes.support_y.shape
        drawn = minibatches(tasks, images, settings.inner_batch, steps, settings.replacement, generator)
        return take_batches(episodes.support_x, episodes.support_y, drawn)
