"""The inner loop: SGD or Adam on T stacked copies of a network, one per task, trained in parallel.

The optimiser works on plain tensors, because torch.optim offers neither T parameter sets in one tensor nor a second
moment that outlives the task it was gathered on.
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
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.native import Rule
from torchreptile.models.execution.execution import Execution, stack
from torchreptile.models.losses import task_losses

BETA2 = 0.999
EPS = 1e-8


@dataclass(frozen=True, eq=False)
class InnerState:
    """The inner optimiser's state, which may be carried from task to task.

    Attributes:
        v: Adam's second moment by name, shaped like the parameters; empty for SGD.
        steps: () float64 number of steps taken, for bias correction.
        images: images of the mini-batches whose gradients are in ``v``.
    """

    v: Params
    steps: Tensor
    images: int

    @classmethod
    def fresh(cls, params: Params, optimizer: str, images: int) -> InnerState:
        """Return the state before the first step.

        Args:
            params: the weights by name.
            optimizer: sgd or adam.
            images: of a mini-batch.
        """
        v = {name: torch.zeros_like(p) for name, p in params.items()} if optimizer == "adam" else {}
        return cls(v, torch.zeros((), dtype=torch.float64, device=next(iter(params.values())).device), images)

    def rescaled(self, images: int) -> InnerState:
        """Return the state for mini-batches of ``images`` images.

        The original code minimises the sum of a mini-batch's losses. There, if Adam's second moment comes from
        mini-batches of 20 images, one of 10 takes half the step. With the mean, as here, it takes half the step if the
        second moment is multiplied by 4.
        """
        if images == self.images:
            return self
        factor = (self.images / images) ** 2
        return replace(self, v={name: v * factor for name, v in self.v.items()}, images=images)


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Return names and shapes, which are equal exactly if weights fit a network."""
    return {name: tuple(p.shape) for name, p in params.items()}


def as_if_in_sequence(start: InnerState, mean: InnerState, tasks: int) -> InnerState:
    """Return the second moment that the tasks would leave if they ran in sequence, averaged over all orders.

    The plain mean of their moments decays by the steps of one task where the original decays by those of all of them:
    it would average over ``tasks`` times as many tasks, and rare large gradients would shorten the steps for longer.

    Args:
        start: where every task began.
        mean: the mean over tasks of where they ended.
        tasks: M, number of tasks, of n steps each.

    Returns:
        b^nM start + (1 - b^nM) / (1 - b^n) (mean - b^n start), where b is Adam's beta2; and n M more steps.
    """
    if not mean.v:
        return mean
    taken, v = mean.steps - start.steps, {}
    for name, moment in mean.v.items():
        decay = math.log(BETA2) * taken.to(moment.dtype)  # of one task; expm1 is exact where 1 - b^n would cancel
        weight = torch.expm1(decay * tasks) / torch.expm1(decay)
        v[name] = (decay * tasks).exp() * start.v[name] + weight * (moment - decay.exp() * start.v[name])
    return replace(mean, v=v, steps=start.steps + taken * tasks)


class InnerLoop:
    """Trains T copies of a network in parallel, each on its own task.

        sgd:   w <- w - inner lr * g
        adam:  v <- beta2 * v + (1 - beta2) * g^2;  w <- w - inner lr * g / (sqrt(v / (1 - beta2^steps)) + eps)

    Adam has beta1 = 0 and beta2 = 0.999, as in Nichol et al. 2018, appendix A.

    Example:
        >>> import torch
        >>> from torchreptile.core.config import InnerConfig
        >>> from torchreptile.models.execution.generic import generic_execution
        >>> network = torch.nn.Linear(4, 3)
        >>> settings = InnerConfig(inner_optimizer="sgd", inner_lr=0.1)
        >>> loop = InnerLoop(settings, generic_execution(network, "loop", "as requested"))
        >>> start = {name: p.detach() for name, p in network.named_parameters()}
        >>> params, state = loop.stacked(start, InnerState.fresh(start, "sgd", images=5), tasks=2)
        >>> batch = torch.rand(2, 5, 4), torch.zeros(2, 5, dtype=torch.int64)  # 2 tasks, 5 points each
        >>> losses = loop.run(params, state, [batch, batch, batch])
        >>> tuple(losses.shape), bool((losses[-1] < losses[0]).all())
        ((3, 2), True)
    """

    def __init__(self, settings: InnerConfig, execution: Execution, precision: str = "fp32") -> None:
        """Prepare the inner loop.

        Args:
            settings: optimiser and learning rate.
            execution: how T copies of the network are computed.
            precision: fp32, tf32 or bf16; parameters and optimiser state have the dtype they are given in.
        """
        self.settings, self.execution, self._precision = settings, execution, precision
        step = self._adam_written_out if execution.compiled else self._adam_fused
        self._step = step if settings.inner_optimizer == "adam" else self._sgd
        self._differentiable = execution.differentiable_gradient
        if execution.compiled:
            self._step = compiled(self._step)
            self._differentiable = self._differentiable and compiled(self._differentiable)
        if execution.step is not None:
            self._step = self._step_of_execution

    def stacked(self, params: Params, state: InnerState, tasks: int) -> tuple[Params, InnerState]:
        """Return T independent copies of parameters and optimiser state, (T, ...) each, for :meth:`run`."""
        order = self.execution.kernel_order
        return stack(params, tasks, order), replace(state, v=stack(state.v, tasks, order), steps=state.steps.clone())

    def run(self, params: Params, state: InnerState, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Take one inner step per mini-batch, changing ``params`` and ``state`` in place.

        Args:
            params: by name, (T, ...) each.
            state: its second moment stacked like the parameters, (T, ...) each.
            batches: images (T, B, C, H, W) and labels (T, B), or points (T, B, inputs) and values (T, B, targets).

        Returns:
            (steps, T) each task's loss before each step.
        """
        losses: list[Tensor] = []
        for x, y in batches:
            # Counted outside the compiled step: torch 2.13 loses in-place changes of a 0-dimensional CPU tensor there.
            state.steps.add_(1)
            losses.append(self._step(params, state.v, state.steps, x, y))
        return torch.stack(losses) if losses else torch.empty(0, len(next(iter(params.values()))))

    def forward(self, params: Params, x: Tensor) -> Tensor:
        """Return the outputs (T, B, way or targets) in the loop's precision.

        Args:
            params: by name, (T, ...) each.
            x: (T, B, C, H, W) images, or (T, B, inputs) points.
        """
        with self._cast(x):
            return self.execution.forward(params, x)

    def loss_and_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """Return each task's mean loss (T,), and its gradient by name, (T, ...) each; tasks are independent.

        Args:
            params: by name, (T, ...) each.
            x: (T, B, C, H, W) images, or (T, B, inputs) points.
            y: (T, B) labels, or (T, B, targets) values.
        """
        if self.execution.loss_and_gradient is not None:
            with self._cast(x):
                return self.execution.loss_and_gradient(params, x, y)

        def total(params: Params) -> tuple[Tensor, Tensor]:
            losses = self._losses(params, x, y)
            return losses.sum(), losses

        gradient, losses = torch.func.grad(total, has_aux=True)(params)
        return losses, gradient

    def differentiable_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """Return each task's mean loss (T,), and its gradient, both differentiable in ``params``.

        Args:
            params: by name, (T, ...) each; they must require a gradient.
            x: (T, B, C, H, W) images, or (T, B, inputs) points.
            y: (T, B) labels, or (T, B, targets) values.
        """
        if self._differentiable is not None:
            with self._cast(x):
                return self._differentiable(params, x, y)
        losses = self._losses(params, x, y)
        inputs = list(params.values())
        gradient = torch.autograd.grad(losses.sum(), inputs, create_graph=True, materialize_grads=True)
        return losses, dict(zip(params, gradient, strict=True))

    def shared_features(self, params: Params, x: Tensor) -> Tensor | None:
        """Return the head's inputs (T, B, features), with one body for all tasks; None if there is no separate head.

        Args:
            params: by name, common to all tasks (no leading axis).
            x: (T, B, C, H, W) images.
        """
        if self.execution.shared_features is None:
            return None
        with self._cast(x):
            features = self.execution.shared_features(params, x)
        return features.to(next(iter(params.values())).dtype)

    def _losses(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of each task, (T,)."""
        outputs = self.forward(params, x)
        outputs = outputs.to(params[next(iter(params))].dtype)
        return task_losses(outputs, y)

    def _cast(self, x: Tensor) -> AbstractContextManager[object]:
        """Return the context of the loop's precision."""
        if self._precision != "bf16":
            return nullcontext()
        return torch.autocast(x.device.type, dtype=torch.bfloat16)

    def _adam_fused(self, params: Params, v: Params, steps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Take a step of Adam with beta1 = 0 in one fused kernel, and return the losses (T,)."""
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
        """Take a step of Adam with beta1 = 0 in plain operations, which the compiler fuses with the gradient."""
        losses, gradient = self.loss_and_gradient(params, x, y)
        correction = (1 - BETA2**steps).sqrt()
        for name, g in gradient.items():
            v[name].mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            params[name].addcdiv_(g, v[name].sqrt().div_(correction).add_(EPS), value=-self.settings.inner_lr)
        return losses

    def _step_of_execution(self, params: Params, v: Params, steps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Take a step of SGD or Adam by an execution that has its own steps, and return the losses (T,)."""
        assert self.execution.step is not None
        correction = math.sqrt(1 - BETA2 ** float(steps))
        rule = Rule(self.settings.inner_optimizer, self._rate(x), BETA2, EPS, correction)
        return self.execution.step(params, v, x, y, rule)

    def _sgd(self, params: Params, v: Params, steps: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Take a step of SGD, and return the losses (T,)."""
        losses, gradient = self.loss_and_gradient(params, x, y)
        names = list(params)
        torch._foreach_sub_([params[name] for name in names], [gradient[name] for name in names], alpha=self._rate(x))
        return losses

    def _rate(self, x: Tensor) -> float:
        """Return the learning rate for the gradient of the mean loss on a mini-batch (T, B, ...)."""
        return self.settings.inner_lr * (x.shape[1] if self.settings.inner_loss == "sum" else 1)


def _laid_out_like(p: Tensor, g: Tensor) -> Tensor:
    """Return ``g`` with the strides of ``p``, because the fused optimiser ignores strides."""
    return g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
