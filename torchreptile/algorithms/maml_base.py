"""The base of MAML and its variants: adapt by SGD on the support set, and meta-learn from the query loss."""

from __future__ import annotations

import torch
from torch import Tensor

from torchreptile.algorithms.base import Adapted
from torchreptile.algorithms.execution_context import ExecutionContext
from torchreptile.algorithms.gradient_based import AdaptedNetwork, GradientBased, take_batches
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.differentiable_sgd import Rates, descend, differentiable_descent
from torchreptile.algorithms.task_gradient import TaskGradient, TaskSums
from torchreptile.core.config import Config
from torchreptile.core.random_state import RandomState
from torchreptile.core.torch_compile import compiled
from torchreptile.data.episodes import Episodes
from torchreptile.data.minibatches import minibatches
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.network import maml_for_images
from torchreptile.models.execution.task_chunks import CPU_TASKS, SHARE, saved_bytes, total_memory


class MAMLBase(GradientBased, TaskGradient):
    """Adapts by SGD, and differentiates the query loss at the adapted weights back through the inner steps.

    phi_task = phi after inner steps of SGD on the support set
    gradient = mean over tasks of d L_query(phi_task) / d phi
    """

    second_order = True

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        super().__init__(blueprint, config, context)
        self.query_gradient = self.inner_loop.loss_and_gradient
        if self.execution.compiled:
            self.query_gradient = compiled(self.query_gradient)

    @staticmethod
    def network(config: Config) -> Network:
        """Return the MAML paper's network, whose head takes 64 averages for small images."""
        return maml_for_images

    def rates(self, params: Params) -> Rates:
        """Return the inner learning rates by the names of the weights that adapt: by default ``inner_lr`` for all."""
        return dict.fromkeys(self.weights(params), self.config.inner.inner_lr)

    def training_draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """Draw the mini-batches of the inner steps, as indices into the support sets: (T, inner_steps, B)."""
        inner = self.config.inner
        return minibatches(tasks, images, inner.inner_batch, inner.inner_steps, inner.replacement, generator)

    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> TaskSums:
        """Return the gradient of the query losses, summed over tasks, through every inner step (second order)."""
        weights, rates = self.weights(params), self.rates(params)
        batches = list(take_batches(episodes.support_x, episodes.support_y, drawn))
        path = differentiable_descent(self.inner_loop, weights, rates, batches, self.chunks.steps or len(batches))
        losses, at_end = self.query_gradient(path.end, episodes.query_x, episodes.query_y)
        of_weights, of_rates = path.pull(at_end)
        return TaskSums(of_weights | self.named_rates(of_rates), losses.sum())

    def named_rates(self, of_rates: Params) -> Params:
        """Return the gradients of meta-learned rates by the names of the rates: by default none."""
        return {}

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Adapt by SGD from phi with the current rates.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, C, H, W) images, or (T, S, inputs) points.
            support_y: (T, S) labels, or (T, S, targets) values.
            drawn: (T, steps, B) indices of mini-batches.
        """
        batches = list(take_batches(support_x, support_y, drawn))
        rates = self.rates(state.params)
        params = descend(self.inner_loop, self.weights(state.params), rates, batches, len(support_x))
        return AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)

    def fit_chunks(self, state: MetaState, episodes: Episodes) -> None:
        """Determine once how many tasks to compute at a time, and how many inner steps to have in memory."""
        if not self.chunks.steps:
            self.chunks.fit_steps(self._segment(state, episodes))
        super().fit_chunks(state, episodes)

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return the bytes of one training task: graph of a segment, weights between segments, and the query pass."""
        steps = self.config.inner.inner_steps
        segment = min(self.chunks.steps or steps, steps)
        borders = -(-steps // segment)
        return (
            self._fixed_bytes(state, episodes)
            + segment * self.step_bytes(state, episodes)
            + (borders * self._weight_bytes(state))
        )

    def step_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return the bytes of the graph of one inner step of one task, and as many again for its backward pass."""
        images = self.config.training_batch
        x = episodes.support_x[:1, :1].expand(1, images, *episodes.support_x.shape[2:])
        y = episodes.support_y[:1, :1].repeat_interleave(images, 1)
        leaves, _ = self.inner_loop.stacked(self.weights(state.params), state.inner, 1)
        leaves = {name: p.requires_grad_() for name, p in leaves.items()}

        def step() -> Tensor:
            _, gradient = self.inner_loop.differentiable_gradient(leaves, x, y)
            return torch.stack([g.sum() for g in gradient.values()])

        with torch.enable_grad(), RandomState.now(x.device).restored(x.device):
            return 2 * saved_bytes(step)

    def _segment(self, state: MetaState, episodes: Episodes) -> int:
        """Return the inner steps whose graph fits into memory for the preferred number of tasks at a time."""
        steps, run = self.config.inner.inner_steps, self.config.run
        if run.unrolled_steps or steps == 1:
            return min(run.unrolled_steps or steps, steps)
        wanted = self.chunks.limit or (1 if self.execution.one_by_one else CPU_TASKS)
        wanted = min(wanted, self.config.outer.meta_batch)
        room = SHARE * total_memory(episodes.support_x.device) / wanted
        room -= self._fixed_bytes(state, episodes) + steps * self._weight_bytes(state)
        return max(1, min(steps, int(room // max(self.step_bytes(state, episodes), 1))))

    def _fixed_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return the bytes of a first-order step on the largest batch: queries, or inner batch of an evaluation."""
        task = self.config.task
        queries = task.way * max(task.train_queries, self.config.evaluation.queries)
        return self.plain_bytes(state, episodes, max(queries, self.largest_batch()))

    def _weight_bytes(self, state: MetaState) -> int:
        """Return the bytes of the network's weights."""
        return sum(p.nbytes for p in self.weights(state.params).values())
