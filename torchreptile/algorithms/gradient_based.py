"""The frame of algorithms that adapt by training the network itself on the support set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from torchreptile.algorithms.base import Adapted, Algorithm, ExecutionContext, MetaState
from torchreptile.algorithms.optim.inner_loop import InnerLoop, InnerState, Params
from torchreptile.core.config import Config
from torchreptile.data.episodes import Episodes
from torchreptile.data.minibatches import minibatches
from torchreptile.models.blueprint import Blueprint
from torchreptile.models.execution.execution import stack
from torchreptile.models.execution.task_chunks import saved_bytes
from torchreptile.models.mlp import MLP


class GradientBased(Algorithm):
    """Adapts by ``eval_steps`` inner steps on mini-batches of the support set."""

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        super().__init__(blueprint, config, context)
        self.inner_loop = InnerLoop(config.inner, context.execution, config.run.precision)

    def initial_inner(self, network_params: Params) -> InnerState:
        """The inner optimiser, fresh."""
        return InnerState.fresh(network_params, self.config.inner.inner_optimizer, self.config.training_batch)

    def draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """(T, eval_steps, B) indices of mini-batches."""
        settings, replacement = self.config.evaluation, self.config.inner.replacement
        # A batch larger than the support set cannot be drawn without repetition: --replacement takes all of it.
        batch = min(settings.eval_batch, images) if replacement else settings.eval_batch
        return minibatches(tasks, images, batch, settings.eval_steps, replacement, generator)

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Train T copies of phi by one inner step per mini-batch."""
        params, inner = self.copies_for(state, drawn)
        self.inner_loop.run(params, inner, take_batches(support_x, support_y, drawn))
        return AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)

    def settled(self, state: MetaState, adapted: Adapted) -> tuple[MetaState, Config]:
        """The adapted weights, and no step to take."""
        if not isinstance(adapted, AdaptedNetwork):
            return super().settled(state, adapted)
        params = {name: p[0].clone(memory_format=torch.contiguous_format) for name, p in adapted.params.items()}
        return replace(state, params=state.params | params), self.config.replace(eval_steps=0)

    def unadapted(self, state: MetaState, support_x: Tensor) -> Adapted:
        """T copies of phi."""
        params = stack(self.weights(state.params), len(support_x), self.execution.kernel_order)
        return AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)

    def start(self, state: MetaState) -> MetaState:
        """What a task begins with: under ``reset`` the optimiser forgets what it gathered before."""
        if self.config.inner.inner_state == "reset":
            return replace(state, inner=self.initial_inner(state.params))
        return state

    def copies_for(self, state: MetaState, drawn: Tensor) -> tuple[Params, InnerState]:
        """What an episode begins with, once for each task, to be trained on mini-batches ``drawn`` (T, steps, B)."""
        start = self.start(state)
        params, inner = self.inner_loop.stacked(start.params, start.inner, len(drawn))
        return params, inner.rescaled(drawn.shape[2])

    def fit_chunks(self, state: MetaState, episodes: Episodes) -> None:
        """Where tasks gain nothing from being together, one at a time."""
        if not self.chunks.limit and self.execution.one_by_one:
            self.chunks.limit = 1
        super().fit_chunks(state, episodes)

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Of an inner step: activations both ways, and weights with their second moment, gradient, temporaries."""
        return self.plain_bytes(state, episodes, self.largest_batch())

    def largest_batch(self) -> int:
        """Images in an inner mini-batch of training or evaluation, whichever has more."""
        return max(self.config.training_batch, self.config.evaluation_batch)

    def weights(self, params: Params) -> Params:
        """Of what is meta-learned, the network's own part: by default all of it."""
        return params

    def plain_bytes(self, state: MetaState, episodes: Episodes, images: int) -> int:
        """Of one step of one task on so many images, of which nothing is differentiated again."""
        params = self.weights(state.params)
        leaves, _ = self.inner_loop.stacked(params, InnerState.fresh(params, "sgd", images), 1)
        leaves = {name: p.requires_grad_() for name, p in leaves.items()}
        x = episodes.support_x[:1, :1].expand(1, images, *episodes.support_x.shape[2:])
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):  # it may draw; nobody must notice
            activations = saved_bytes(lambda: self.inner_loop.forward(leaves, x))
        return 2 * activations + 5 * sum(p.nbytes for p in leaves.values())


class AdaptedNetwork(Adapted):
    """T trained copies of the network; BatchNorm goes by the batch that an image is labelled in."""

    def __init__(self, inner_loop: InnerLoop, module: nn.Module, params: Params, support_x: Tensor) -> None:
        """``params``: (T, ...) each; ``support_x``: (T, S, C, H, W), the company of a query that is labelled alone."""
        self.params = params
        self._inner_loop, self._module, self._support_x = inner_loop, module, support_x

    @torch.no_grad()
    def transductive(self, query_x: Tensor) -> Tensor:
        """All queries in one batch."""
        with _labelling(self._module):
            return self._inner_loop.forward(self.params, query_x)

    @torch.no_grad()
    def inductive(self, query_x: Tensor) -> Tensor:
        """Each query in a batch of its own, with the whole support set."""
        if isinstance(self._module, MLP):  # which looks at every point by itself, whatever the batch
            return self.transductive(query_x)
        with _labelling(self._module):
            logits = []
            for query in query_x.unbind(1):
                batch = torch.cat([self._support_x, query.unsqueeze(1)], dim=1)
                logits.append(self._inner_loop.forward(self.params, batch)[:, -1])
        return torch.stack(logits, dim=1)


@contextmanager
def _labelling(module: nn.Module) -> Iterator[None]:
    """No Dropout; BatchNorm goes by the batch all the same."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a transformer's shortcut in eval mode, which vmap cannot batch
    module.eval()
    try:
        yield
    finally:
        module.train()
        torch.backends.mha.set_fastpath_enabled(fast_path)


def take_batches(x: Tensor, y: Tensor, drawn: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut mini-batches out of support sets.

    Args:
        x: (T, S, C, H, W) images, or (T, S, inputs) points.
        y: (T, S) labels, or (T, S, targets) values.
        drawn: (T, steps, B) indices from :func:`minibatches`.

    Yields:
        One (T, B, ...), (T, B, ...) pair per inner step.
    """
    tasks = torch.arange(len(x), device=x.device)[:, None]
    for step in drawn.unbind(1):
        yield x[tasks, step], y[tasks, step]
