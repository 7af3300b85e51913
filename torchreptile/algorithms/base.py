"""What every algorithm must offer: a meta-gradient to train by, and predictions to be measured by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchreptile.config import Config
from torchreptile.data.store import ImageStore
from torchreptile.episodes import Episodes, EpisodeSampler
from torchreptile.inner import InnerLoop, InnerState, Params, stack, stacked_forward
from torchreptile.minibatches import minibatches


@dataclass(frozen=True, eq=False)
class MetaState:
    """What meta-training learns.

    Attributes:
        params: phi, the initialisation: the network's parameters by name.
        inner: the inner optimiser's state that carries on from task to task.
    """

    params: Params
    inner: InnerState


@dataclass(frozen=True, eq=False)
class MetaGradient:
    """What one meta-batch of tasks says about phi.

    Attributes:
        gradient: shaped like the parameters; the outer update is phi <- phi - step size * gradient.
        inner: the inner optimiser's state after these tasks.
        loss: () mean training loss inside the tasks, for people.
    """

    gradient: Params
    inner: InnerState
    loss: Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted labels of every query image, (T, way * queries) int64 each.

    Attributes:
        transductive: all queries of an episode in one batch, sharing BatchNorm statistics.
        non_transductive: each query alone with the support set; no query can influence another.
    """

    transductive: Tensor
    non_transductive: Tensor


class Algorithm(ABC):
    """A few-shot learner."""

    @abstractmethod
    def sampler(self, store: ImageStore) -> EpisodeSampler:
        """The sampler of this algorithm's training tasks."""

    @abstractmethod
    def initial_state(self, params: Params) -> MetaState:
        """The state before training."""

    @abstractmethod
    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """Learn from a meta-batch of training tasks; ``state`` is left as it was."""

    @abstractmethod
    def predict(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Predictions:
        """Adapt to each support set and label its queries; ``state`` is left as it was."""


class GradientBased(Algorithm):
    """Algorithms that adapt by training the network itself on the support set."""

    def __init__(self, module: nn.Module, config: Config, execution: str) -> None:
        """``module`` gives the network's form alone: its own weights are never used.

        ``execution`` is loop, grouped or compiled (see :func:`torchreptile.inner.choose_execution`).
        """
        self.module, self.config = module, config
        self.inner_loop = InnerLoop(module, config.inner, execution)
        # A single forward pass gains nothing from the compiler.
        self._forward = stacked_forward(module, "grouped" if execution == "compiled" else execution)

    def initial_state(self, params: Params) -> MetaState:
        """Phi as given, the inner optimiser fresh."""
        return MetaState(params, InnerState.fresh(params, self.config.inner.inner_optimizer))

    def predict(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Predictions:
        """Adapt T copies of phi by ``eval_steps`` inner steps, then label the queries both ways."""
        settings = self.config.evaluation
        tasks, images = episodes.support_y.shape
        # A batch larger than the support set cannot be drawn without repetition: --replacement takes all of it.
        batch = min(settings.eval_batch, images) if self.config.inner.replacement else settings.eval_batch
        drawn = minibatches(tasks, images, batch, settings.eval_steps, self.config.inner.replacement, generator)
        params, inner = stack(state.params, tasks), self._stacked_inner(state.inner, tasks)
        self.inner_loop.run(params, inner, take_batches(episodes.support_x, episodes.support_y, drawn))
        return self._predict_with(params, episodes)

    @torch.no_grad()
    def _predict_with(self, params: Params, episodes: Episodes) -> Predictions:
        together = self._forward(params, episodes.query_x).argmax(-1)
        alone = []
        for query in episodes.query_x.unbind(1):
            batch = torch.cat([episodes.support_x, query.unsqueeze(1)], dim=1)
            alone.append(self._forward(params, batch)[:, -1].argmax(-1))
        return Predictions(transductive=together, non_transductive=torch.stack(alone, dim=1))

    def _stacked_inner(self, inner: InnerState, tasks: int) -> InnerState:
        """T copies of the carried optimiser state; a fresh one under ``reset``."""
        if self.config.inner.inner_state == "reset":
            zeros = {name: torch.zeros_like(v) for name, v in inner.v.items()}
            return InnerState(stack(zeros, tasks), torch.zeros_like(inner.steps))
        return InnerState(stack(inner.v, tasks), inner.steps.clone())


def take_batches(x: Tensor, y: Tensor, drawn: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Cut mini-batches out of tasks.

    Args:
        x: (T, N, C, H, W) images.
        y: (T, N) labels.
        drawn: (T, steps, B) indices from :func:`minibatches`.

    Returns:
        One (T, B, C, H, W), (T, B) pair per inner step.
    """
    tasks = torch.arange(len(x), device=x.device)[:, None]
    return [(x[tasks, step], y[tasks, step]) for step in drawn.unbind(1)]
