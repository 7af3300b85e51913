"""The base of algorithms that adapt by training the network on the support set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from torchreptile.algorithms.base import Adapted, Algorithm
from torchreptile.algorithms.execution_context import ExecutionContext
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerLoop, InnerState
from torchreptile.core.config import Config
from torchreptile.core.random_state import RandomState
from torchreptile.data.episodes import Episodes
from torchreptile.data.minibatches import minibatches
from torchreptile.models.blueprint import Blueprint
from torchreptile.models.built_in import Params
from torchreptile.models.execution.execution import stack
from torchreptile.models.execution.task_chunks import saved_bytes
from torchreptile.models.module_call import predicting
from torchreptile.models.support_cache import SupportCache

CACHE_FROM = 10  # queries of one learner from which finding out what can be cached pays


class GradientBased(Algorithm):
    """Adapts by ``eval_steps`` inner steps on mini-batches of the support set, from the meta-learned weights."""

    draws_minibatches = True

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        super().__init__(blueprint, config, context)
        self.inner_loop = InnerLoop(config.inner, context.execution, config.run.precision)

    def initial_inner(self, network_params: Params) -> InnerState:
        """Return the inner optimiser's state before the first step."""
        return InnerState.fresh(network_params, self.config.inner.inner_optimizer, self.config.training_batch)

    def draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """Draw the mini-batches of adaptation, as indices into the support sets: (T, eval_steps, B)."""
        settings, replacement = self.config.evaluation, self.config.inner.replacement
        # With --replacement an image occurs once per batch, so a batch has no more images than the support set.
        batch = min(settings.eval_batch, images) if replacement else settings.eval_batch
        return minibatches(tasks, images, batch, settings.eval_steps, replacement, generator)

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Train T copies of phi with one inner step per mini-batch.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, C, H, W) images, or (T, S, inputs) points.
            support_y: (T, S) labels, or (T, S, targets) values.
            drawn: (T, eval_steps, B) indices of mini-batches.
        """
        params, inner = self.copies_for(state, drawn)
        self.inner_loop.run(params, inner, take_batches(support_x, support_y, drawn))
        return AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)

    def settled(self, state: MetaState, adapted: Adapted) -> tuple[MetaState, Config]:
        """Return the weights of the first adapted learner, and settings without inner steps."""
        if not isinstance(adapted, AdaptedNetwork):
            return super().settled(state, adapted)
        params = {name: p[0].clone(memory_format=torch.contiguous_format) for name, p in adapted.params.items()}
        return replace(state, params=state.params | params), self.config.replace(eval_steps=0)

    def unadapted(self, state: MetaState, support_x: Tensor) -> Adapted:
        """Return T copies of the network with weights phi."""
        params = stack(self.weights(state.params), len(support_x), self.execution.kernel_order)
        return AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)

    def start(self, state: MetaState) -> MetaState:
        """Return the state a task starts from, with a fresh inner optimiser if ``inner_state`` is reset."""
        if self.config.inner.inner_state == "reset":
            return replace(state, inner=self.initial_inner(state.params))
        return state

    def copies_for(self, state: MetaState, drawn: Tensor) -> tuple[Params, InnerState]:
        """Return T copies of weights and inner optimiser, ready for the mini-batches ``drawn`` (T, steps, B)."""
        start = self.start(state)
        params, inner = self.inner_loop.stacked(start.params, start.inner, len(drawn))
        return params, inner.rescaled(drawn.shape[2])

    def fit_chunks(self, state: MetaState, episodes: Episodes) -> None:
        """Determine once how many tasks to compute at a time: one, if the execution gains nothing from more."""
        if not self.chunks.limit and self.execution.one_by_one:
            self.chunks.limit = 1
        super().fit_chunks(state, episodes)

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return the bytes of an inner step of one task: activations, weights, moments, gradient and temporaries."""
        return self.plain_bytes(state, episodes, self.largest_batch())

    def largest_batch(self) -> int:
        """Return the images of an inner mini-batch in training or evaluation, whichever are more."""
        return max(self.config.training_batch, self.config.evaluation_batch)

    def weights(self, params: Params) -> Params:
        """Return those of the meta-learned parameters that are the network's weights: by default all."""
        return params

    def plain_bytes(self, state: MetaState, episodes: Episodes, images: int) -> int:
        """Return the bytes that one first-order step of one task on ``images`` images takes."""
        params = self.weights(state.params)
        leaves, _ = self.inner_loop.stacked(params, InnerState.fresh(params, "sgd", images), 1)
        leaves = {name: p.requires_grad_() for name, p in leaves.items()}
        x = episodes.support_x[:1, :1].expand(1, images, *episodes.support_x.shape[2:])
        with RandomState.now(x.device).restored(x.device):  # Dropout draws random numbers
            activations = saved_bytes(lambda: self.inner_loop.forward(leaves, x))
        return 2 * activations + 5 * sum(p.nbytes for p in leaves.values())


class AdaptedNetwork(Adapted):
    """T trained copies of the network, whose BatchNorm uses the statistics of the batch it predicts."""

    def __init__(self, inner_loop: InnerLoop, module: nn.Module, params: Params, support_x: Tensor) -> None:
        """Predict with the trained weights.

        Args:
            inner_loop: computes T copies of the network.
            module: the network.
            params: its trained weights by name, (T, ...) each.
            support_x: (T, S, C, H, W) images, which complete the batch of a query predicted alone.
        """
        self.params = params
        self._inner_loop, self._module, self._support_x = inner_loop, module, support_x
        self._asked = 0  # queries predicted one by one
        self._cache: SupportCache | None = None

    @torch.no_grad()
    def transductive(self, query_x: Tensor) -> Tensor:
        """Predict all queries of a task in one batch: (T, Q, ...) -> (T, Q, way or targets)."""
        with self._predicting():
            return self._inner_loop.forward(self.params, query_x)

    @torch.no_grad()
    def inductive(self, query_x: Tensor) -> Tensor:
        """Predict each query in a batch with its support set: (T, Q, ...) -> (T, Q, way or targets).

        Where the outputs of the network are independent of the others of a batch, the support set is left out.
        """
        if self._inner_loop.execution.independent_outputs:
            return self.transductive(query_x)
        with self._predicting():
            return torch.stack([self._alone(query) for query in query_x.unbind(1)], dim=1)

    def _alone(self, query: Tensor) -> Tensor:
        """Return the outputs (T, way or targets) of one query per task, (T, ...), in a batch with the support set."""
        self._asked += 1
        cacheable = len(query) == 1 and self._inner_loop.execution.name == "loop"
        if self._asked == CACHE_FROM and cacheable and not torch.compiler.is_exporting():
            self._cache = SupportCache(
                self._module, lambda batch: self._forward(batch[None])[0], self._support_x[0], query[0]
            )
        batch = torch.cat([self._support_x, query.unsqueeze(1)], dim=1)
        # An exported program computes everything itself.
        exporting = torch.compiler.is_exporting()
        with self._cache.in_use() if self._cache is not None and not exporting else nullcontext():
            return self._forward(batch)[:, -1]

    def _forward(self, batch: Tensor) -> Tensor:
        return self._inner_loop.forward(self.params, batch)

    def _predicting(self) -> AbstractContextManager[None]:
        return predicting(self._module, self._inner_loop.execution.draws_predicting)


def take_batches(x: Tensor, y: Tensor, drawn: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the mini-batches of support sets, one pair of (T, B, ...) tensors per inner step.

    Args:
        x: (T, S, C, H, W) images, or (T, S, inputs) points.
        y: (T, S) labels, or (T, S, targets) values.
        drawn: (T, steps, B) indices into the support sets.

    Example:
        >>> import torch
        >>> x, y = torch.arange(3).view(1, 3, 1), torch.tensor([[0, 1, 2]])
        >>> [labels.tolist() for _, labels in take_batches(x, y, torch.tensor([[[0, 1], [2, 0]]]))]
        [[[0, 1]], [[2, 0]]]
    """
    tasks = torch.arange(len(x), device=x.device)[:, None]
    for step in drawn.unbind(1):
        yield x[tasks, step], y[tasks, step]
