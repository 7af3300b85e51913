"""ANIL, almost no inner loop (Raghu, Raghu, Bengio, Vinyals 2020): MAML whose inner steps move the head alone."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.algorithms.base import Adapted
from torchreptile.algorithms.gradient_based import AdaptedNetwork
from torchreptile.algorithms.maml_base import MAMLBase
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.differentiable_sgd import Rates
from torchreptile.algorithms.task_gradient import TaskSums
from torchreptile.data.episodes import Episodes
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.layers import heads
from torchreptile.models.execution.execution import stack
from torchreptile.models.losses import task_losses

WEIGHT, BIAS = "head.weight", "head.bias"  # of the built-in networks


@final
class ANIL(MAMLBase):
    """ANIL: MAML with inner steps of the head only; the body is common to all tasks.

        head_task = head after inner steps of SGD, each head <- head - inner lr * d L_support(body, head) / d head
        phi <- phi - outer step size * mean over tasks of d L_query(body, head_task) / d phi,    phi = (body, head)

    The inner loop is softmax regression on fixed features, and second order reaches the body through the features of
    support and queries. Raghu, Raghu, Bengio, Vinyals 2020 (arXiv 1909.09157), section 4.

    The head is the layer of the network's last parameter that is not frozen. In the built-in networks the body runs
    once per batch of images, for all tasks together; in custom ones it runs again in every inner step, as in MAML.
    """

    def rates(self, params: Params) -> Rates:
        """Return the inner learning rate of the head's parameters; the body has none."""
        # Taken from the module, because files store parameters in a different order.
        trained = [name for name, p in self.blueprint.module.named_parameters() if p.requires_grad]
        owner = trained[-1].rpartition(".")[0]
        return {name: self.config.inner.inner_lr for name in params if name.rpartition(".")[0] == owner}

    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> TaskSums:
        """Return the gradient of the query losses, by autograd through features and heads if the network has both."""
        if self.execution.shared_features is None:
            return super().gradient(params, episodes, drawn)
        leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
        with torch.enable_grad():
            adapted = self._adapted_heads(leaves, episodes.support_x, episodes.support_y, drawn)
            logits = heads(adapted, self._features(leaves, episodes.query_x))
            loss = task_losses(logits, episodes.query_y).sum()
        gradient = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        return TaskSums(dict(zip(leaves, gradient, strict=True)), loss.detach())

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Adapt T heads on one body.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, C, H, W) images.
            support_y: (T, S) labels.
            drawn: (T, steps, B) indices of mini-batches.
        """
        if self.execution.shared_features is None:
            return super().adapt(state, support_x, support_y, drawn)
        adapted = self._adapted_heads(state.params, support_x, support_y, drawn)
        body = {name: p for name, p in state.params.items() if name not in adapted}
        params = stack(body, len(support_x), self.execution.kernel_order) | adapted
        return AdaptedNetwork(self.inner_loop, self.blueprint.module, params, support_x)

    def _adapted_heads(self, params: Params, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Params:
        """Return the heads (T, ...) after the inner steps, with the explicit gradient of softmax regression.

        BatchNorm uses the statistics of each inner batch, as in MAML.
        """
        tasks, lr = torch.arange(len(support_x), device=support_x.device)[:, None], self.config.inner.inner_lr
        weight, bias = (params[name].expand(len(support_x), *params[name].shape) for name in (WEIGHT, BIAS))
        full_batch = drawn.shape[2] == support_y.shape[1]  # then every batch is the support set, in some order
        features = self._features(params, support_x) if full_batch else None
        for chosen in drawn.unbind(1):
            x = self._features(params, support_x[tasks, chosen]) if features is None else features
            y = support_y if full_batch else support_y[tasks, chosen]
            p = heads({WEIGHT: weight, BIAS: bias}, x).softmax(-1)
            d = (p - F.one_hot(y, p.shape[-1])) / y.shape[1]
            weight, bias = weight - lr * (d.transpose(1, 2) @ x), bias - lr * d.sum(1)
        return {WEIGHT: weight, BIAS: bias}

    def _features(self, params: Params, x: Tensor) -> Tensor:
        """Return the head's inputs (T, B, features) of images (T, B, C, H, W)."""
        features = self.inner_loop.shared_features(params, x)
        assert features is not None
        return features
