"""Meta-LSTM (Ravi and Larochelle 2017): the optimiser is meta-learned, and so are the weights it starts from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import final

import torch
from torch import Tensor

from torchreptile.algorithms.base import Adapted
from torchreptile.algorithms.execution_context import ExecutionContext
from torchreptile.algorithms.gradient_based import AdaptedNetwork
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerLoop
from torchreptile.algorithms.rows.meta_lstm import MetaLSTMSettings
from torchreptile.algorithms.task_gradient import LossGradient
from torchreptile.core.config import Config
from torchreptile.data.episodes import Episodes
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.built_in import Params
from torchreptile.models.execution.execution import stack
from torchreptile.models.execution.task_chunks import saved_bytes
from torchreptile.models.losses import task_losses
from torchreptile.models.lstm_optimizer import CoordinateState, fresh_weights, preprocessed, update
from torchreptile.models.meta_lstm_learner import Averages, MetaLSTMLearner
from torchreptile.models.module_call import params_of

OPTIMISER = "optimiser."  # before the names of the optimiser's parameters


@final
class MetaLSTM(LossGradient):
    """Meta-LSTM: an LSTM over coordinates sets a forget rate f and a learning rate i for each weight at each update.

        theta_t = f_t * theta_(t-1) - i_t * gradient_t

    The LSTM and the initial weights theta_0 are meta-learned from the query loss after ``inner_steps`` updates
    (``eval_steps`` in evaluation), each on the full support set. The loss is differentiated through the updates but not
    through their gradients: second derivatives are dropped. Ravi and Larochelle, ICLR 2017, equation 2 and section 3.1;
    the LSTM itself is in :mod:`torchreptile.models.lstm_optimizer`.
    """

    streams = True

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        super().__init__(blueprint, config, context)
        self.inner_loop = InnerLoop(config.inner, context.execution, config.run.precision)
        module = blueprint.module
        self._learner = module if isinstance(module, MetaLSTMLearner) else None
        if self._learner is not None:
            one_by_one = context.execution.one_by_one
            self._forward = self._learner.one_by_one if one_by_one else self._learner.forward_stacked
        trained = {name for name, p in module.named_parameters() if p.requires_grad}
        shapes = {name: p.shape for name, p in params_of(module).items()}
        self._sizes = {name: shape for name, shape in shapes.items() if name in trained}
        self._frozen = [name for name in shapes if name not in trained]

    @staticmethod
    def network(config: Config) -> Network:
        """Return the authors' learner: four pooled convolutional blocks."""
        return partial(MetaLSTMLearner, filters=config.own(MetaLSTMSettings).meta_lstm_filters)

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """Return the optimiser's parameters, meta-learned along with the initial weights."""
        like = next(iter(network_params.values()))
        fresh = fresh_weights(self.config.own(MetaLSTMSettings).meta_lstm_units, torch.Generator().manual_seed(seed))
        return {OPTIMISER + name: p.to(like.device, like.dtype) for name, p in fresh.items()}

    def losses(self, params: Params, episodes: Episodes, drawn: Tensor) -> Tensor:
        """Return the mean query loss of each task after the updates, (T,), normalised by the batch of queries."""
        steps = self.config.inner.inner_steps
        theta, _ = self.learn(params, episodes.support_x, episodes.support_y, steps)
        logits = self.inner_loop.forward(self._named(theta, params), episodes.query_x).to(theta.dtype)
        return task_losses(logits, episodes.query_y)

    def learn(self, params: Params, x: Tensor, y: Tensor, steps: int) -> tuple[Tensor, Averages | None]:
        """Return the learners of T tasks after ``steps`` updates on their support sets.

        Args:
            params: initial weights and optimiser by name; the result is differentiable in them.
            x: (T, S, C, H, W) images.
            y: (T, S) labels.
            steps: number of updates.

        Returns:
            The weights (T, N), and BatchNorm's running averages, or None for networks without averages.
        """
        weights = {name.removeprefix(OPTIMISER): p for name, p in params.items() if name.startswith(OPTIMISER)}
        start = torch.cat([params[name].flatten() for name in self._sizes])
        theta = start.repeat(len(x))
        state = CoordinateState.fresh(self.config.own(MetaLSTMSettings).meta_lstm_units, theta.detach())
        averages = self._learner.fresh_averages(theta.detach(), len(x)) if self._learner is not None else None
        for _ in range(steps):
            named = self._named(theta.detach().view(len(x), -1), params)
            loss, gradient = self._loss_and_gradient(named, x, y, averages)
            inputs = torch.cat([preprocessed(loss).repeat_interleave(len(start), 1), preprocessed(gradient)])
            theta, state = update(weights, theta, gradient, inputs, state)
        return theta.view(len(x), -1), averages

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Adapt by ``eval_steps`` updates on the support sets.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, C, H, W) images, or (T, S, inputs) points.
            support_y: (T, S) labels, or (T, S, targets) values.
            drawn: not used.
        """
        with torch.no_grad():
            theta, averages = self.learn(state.params, support_x, support_y, self.config.evaluation.eval_steps)
        params = self._named(theta, state.params)
        if self._learner is None or averages is None:
            return AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)
        return AdaptedLearner(self._forward, params, averages)

    def unadapted(self, state: MetaState, support_x: Tensor) -> Adapted:
        """Return T copies of the network with the initial weights."""
        weights = {name: state.params[name] for name in (*self._sizes, *self._frozen)}
        params = stack(weights, len(support_x), self.execution.kernel_order)
        return AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return the bytes that the updates of one task save for the backward pass."""
        leaves = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        x, y = episodes.support_x[:1], episodes.support_y[:1]

        def saved(steps: int) -> int:
            with torch.enable_grad():
                return saved_bytes(lambda: self.learn(leaves, x, y, steps)[0])

        one, two = saved(1), saved(2)
        return one + (two - one) * (self.config.inner.inner_steps - 1)

    def _named(self, theta: Tensor, params: Params) -> Params:
        """Return the network's parameters by name, (T, ...) each: trained ones (T, N), frozen ones of ``params``."""
        frozen = {name: params[name].detach().expand(len(theta), *params[name].shape) for name in self._frozen}
        parts = torch.split(theta, [size.numel() for size in self._sizes.values()], dim=1)
        named = {
            name: part.view(len(theta), *size) for (name, size), part in zip(self._sizes.items(), parts, strict=True)
        }
        return named | frozen

    def _loss_and_gradient(
        self, named: Params, x: Tensor, y: Tensor, averages: Averages | None
    ) -> tuple[Tensor, Tensor]:
        """Return each learner's mean loss (T,), and its gradient with respect to the trained weights, (T * N,)."""
        if self._learner is None and self.execution.loss_and_gradient is not None:
            loss, its = self.inner_loop.loss_and_gradient(named, x, y)
            return loss, torch.cat([its[name].flatten(1) for name in self._sizes], dim=1).flatten()
        leaves = {name: p.detach().requires_grad_() for name, p in named.items()}
        with torch.enable_grad():
            outputs = (
                self.inner_loop.forward(leaves, x) if self._learner is None else self._forward(leaves, x, averages)
            )
            losses = task_losses(outputs, y)
            trained = [leaves[name] for name in self._sizes]
            gradient = torch.autograd.grad(losses.sum(), trained, materialize_grads=True)
        return losses.detach(), torch.cat([g.flatten(1) for g in gradient], dim=1).flatten()


class AdaptedLearner(Adapted):
    """T of the authors' learners after their updates."""

    def __init__(self, forward: Callable[..., Tensor], params: Params, averages: Averages) -> None:
        """Predict with the trained weights.

        Args:
            forward: the learner's forward pass.
            params: its weights by name, (T, ...) each.
            averages: running averages over the support sets.
        """
        self._forward, self._params, self._averages = forward, params, averages

    @torch.no_grad()
    def transductive(self, query_x: Tensor) -> Tensor:
        """Predict all queries in one batch, normalised by it: (T, Q, C, H, W) -> logits (T, Q, way)."""
        return self._forward(self._params, query_x)

    @torch.no_grad()
    def inductive(self, query_x: Tensor) -> Tensor:
        """Predict each query alone, normalised by running averages over the support set: -> logits (T, Q, way)."""
        return self._forward(self._params, query_x, self._averages, by_averages=True)
