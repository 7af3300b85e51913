"""The inner loop: SGD or Adam on T stacked copies of the network, one per task, advanced side by side.

The optimiser works on plain tensors because a meta-learner needs what torch.optim does not offer: T
parameter sets in one tensor, and a second moment that outlives the task it was gathered on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from torchreptile.core.config import InnerConfig
from torchreptile.core.torch_compile import compiled
from torchreptile.models.conv4.native import Rule
from torchreptile.models.conv4.network import Params as Params
from torchreptile.models.execution.execution import Execution, stack
from torchreptile.models.losses import task_losses

BETA2 = 0.999
EPS = 1e-8


@dataclass(frozen=True, eq=False)
class InnerState:
    """What the inner optimiser carries from task to task.

    Attributes:
        v: Adam's second moment, shaped like the parameters; empty for SGD.
        steps: () float64, the steps behind ``v``, for bias correction.
        images: in each of the mini-batches whose gradients ``v`` was gathered from.
    """

    v: Params
    steps: Tensor
    images: int

    @classmethod
    def fresh(cls, params: Params, optimizer: str, images: int) -> InnerState:
        """The state before the first step, of mini-batches of so many ``images``."""
        v = {name: torch.zeros_like(p) for name, p in params.items()} if optimizer == "adam" else {}
        return cls(v, torch.zeros((), dtype=torch.float64, device=next(iter(params.values())).device), images)

    def rescaled(self, images: int) -> InnerState:
        """This state for mini-batches of so many ``images``.

        The original code goes down the sum of a mini-batch's losses. Where Adam's second moment is of mini-batches of
        20 images, one of 10 makes half the step; down the mean, as here, it does so if that moment is 4 times as large.
        """
        if images == self.images:
            return self
        factor = (self.images / images) ** 2
        return replace(self, v={name: v * factor for name, v in self.v.items()}, images=images)


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Names and shapes: equal exactly when weights fit a network."""
    return {name: tuple(p.shape) for name, p in params.items()}


class InnerLoop:
    """Trains T copies of a network, each on its own task."""

    def __init__(self, settings: InnerConfig, execution: Execution, precision: str = "fp32") -> None:
        """``precision``: fp32, tf32 or bf16; parameters and optimiser state are kept as they are given."""
        self.settings, self.execution, self._precision = settings, execution, precision
        step = self._adam_written_out if execution.compiled else self._adam_fused
        self._step = step if settings.inner_optimizer == "adam" else self._sgd
        self._twice = execution.twice
        if execution.compiled:
            self._step = compiled(self._step)
            self._twice = execution.twice and compiled(execution.twice)
        if execution.step is not None:
            self._step = self._step_of_execution

    def stacked(self, params: Params, state: InnerState, tasks: int) -> tuple[Params, InnerState]:
        """T independent copies of parameters and optimiser state, as :meth:`run` wants them."""
        order = self.execution.kernel_order
        return stack(params, tasks, order), replace(state, v=stack(state.v, tasks, order), steps=state.steps.clone())

    def run(self, params: Params, state: InnerState, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Take one inner step per mini-batch, changing ``params`` and ``state`` in place.

        Args:
            params: stacked parameters, (T, ...) each.
            state: with v stacked likewise, (T, ...) each.
            batches: of images (T, B, C, H, W) and labels (T, B), or points (T, B, inputs) and values (T, B, targets).

        Returns:
            (steps, T) each task's loss at each step.
        """
        losses: list[Tensor] = []
        for x, y in batches:
            # Counted out here because the compiler (torch 2.13) loses in-place changes of a 0-dimensional CPU tensor.
            state.steps.add_(1)
            losses.append(self._step(params, state.v, state.steps, x, y))
        return torch.stack(losses) if losses else torch.empty(0, len(next(iter(params.values()))))

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """(T, B, C, H, W) or (T, B, inputs) -> outputs (T, B, way or targets), in the precision of this loop."""
        with self._cast(x):
            return self.execution.forward(params, x)

    def loss_and_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """(T,) mean loss of each task, and its gradient: one task never touches another's."""
        if self.execution.loss_and_gradient is not None:
            with self._cast(x):
                return self.execution.loss_and_gradient(params, x, y)

        def total(params: Params) -> tuple[Tensor, Tensor]:
            losses = self._losses(params, x, y)
            return losses.sum(), losses

        gradient, losses = torch.func.grad(total, has_aux=True)(params)
        return losses, gradient

    def differentiable_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """The same, as functions of ``params`` that autograd can differentiate; they must require a gradient."""
        if self._twice is not None:
            with self._cast(x):
                return self._twice(params, x, y)
        losses = self._losses(params, x, y)
        inputs = list(params.values())
        gradient = torch.autograd.grad(losses.sum(), inputs, create_graph=True, materialize_grads=True)
        return losses, dict(zip(params, gradient, strict=True))

    def shared_features(self, params: Params, x: Tensor) -> Tensor | None:
        """What the heads see of (T, B, C, H, W), for one body: (T, B, features); None if that is not known."""
        if self.execution.shared_features is None:
            return None
        with self._cast(x):
            features = self.execution.shared_features(params, x)
        return features.to(next(iter(params.values())).dtype)

    def _losses(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """(T,) mean loss of each task."""
        outputs = self.forward(params, x)
        outputs = outputs.to(params[next(iter(params))].dtype)
        return task_losses(outputs, y)

    def _cast(self, x: Tensor) -> AbstractContextManager[object]:
        if self._precision != "bf16":
            return nullcontext()
        return torch.autocast(x.device.type, dtype=torch.bfloat16)

    def _adam_fused(self, params: Params, v: Params, steps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Adam with beta1 = 0: the step is the gradient over the root of its running mean square."""
        losses, gradient = self.loss_and_gradient(params, x, y)
        names = list(params)
        g = [_laid_out_like(params[name], gradient[name]) for name in names]
        # With beta1 = 0 the first moment is the gradient itself, so one tensor serves as both.
        torch._fused_adam_(
            [params[name] for name in names], g, g, [v[name] for name in names], [], [steps.float()] * len(names),
            lr=self.settings.inner_lr, beta1=0.0, beta2=BETA2, weight_decay=0.0, eps=EPS,
            amsgrad=False, maximize=False,
        )  # fmt: skip
        return losses

    def _adam_written_out(self, params: Params, v: Params, steps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The same for the compiler, which fuses each line with the gradient it reads."""
        losses, gradient = self.loss_and_gradient(params, x, y)
        correction = (1 - BETA2**steps).sqrt()
        for name, g in gradient.items():
            v[name].mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            params[name].addcdiv_(g, v[name].sqrt().div_(correction).add_(EPS), value=-self.settings.inner_lr)
        return losses

    def _step_of_execution(self, params: Params, v: Params, steps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Either of them, by an execution that does whole steps."""
        assert self.execution.step is not None
        correction = math.sqrt(1 - BETA2 ** float(steps))
        rule = Rule(self.settings.inner_optimizer, self._rate(x), BETA2, EPS, correction)
        return self.execution.step(params, v, x, y, rule)

    def _sgd(self, params: Params, v: Params, steps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        losses, gradient = self.loss_and_gradient(params, x, y)
        names = list(params)
        torch._foreach_sub_([params[name] for name in names], [gradient[name] for name in names], alpha=self._rate(x))
        return losses

    def _rate(self, x: Tensor) -> float:
        """What the gradient of the mean loss is multiplied by, for a mini-batch (T, B, ...)."""
        return self.settings.inner_lr * (x.shape[1] if self.settings.inner_loss == "sum" else 1)


def _laid_out_like(p: Tensor, g: Tensor) -> Tensor:
    """``g`` with the strides of ``p``: the fused optimiser walks through memory and never looks at them."""
    return g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
