"""The inner loop: SGD or Adam on T stacked copies of the network, one per task, advanced side by side.

The optimiser is written out on plain tensors because a meta-learner needs what torch.optim does not offer:
T parameter sets in one tensor, and a second moment that outlives the task it was gathered on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from torchreptile.config import InnerConfig
from torchreptile.errors import ConfigError
from torchreptile.models.conv4 import Conv4
from torchreptile.models.conv4 import Params as Params

StackedForward = Callable[[Params, Tensor], Tensor]
"""(parameters with a leading axis of T, (T, B, C, H, W)) -> logits (T, B, way)."""

# Compiling takes from 10 seconds to a minute once per machine and saves about 2 ms per task-step on two cores.
COMPILE_FROM = 100_000
BETA2 = 0.999
EPS = 1e-8


@dataclass(frozen=True, eq=False)
class InnerState:
    """What the inner optimiser carries from task to task.

    Attributes:
        v: Adam's second moment, shaped like the parameters; empty for SGD.
        steps: () float64, the steps behind ``v``, for bias correction.
    """

    v: Params
    steps: Tensor

    @classmethod
    def fresh(cls, params: Params, optimizer: str) -> InnerState:
        """The state before the first step."""
        v = {name: torch.zeros_like(p) for name, p in params.items()} if optimizer == "adam" else {}
        return cls(v, torch.zeros((), dtype=torch.float64, device=next(iter(params.values())).device))


def shapes(params: Params) -> dict[str, tuple[int, ...]]:
    """Names and shapes: equal exactly when weights fit a network."""
    return {name: tuple(p.shape) for name, p in params.items()}


def stack(params: Params, tasks: int) -> Params:
    """T independent copies of every tensor: (...) -> (T, ...)."""
    return {name: _copies(p, tasks) for name, p in params.items()}


def _copies(p: Tensor, tasks: int) -> Tensor:
    if p.ndim != 4:
        return p.expand(tasks, *p.shape).clone(memory_format=torch.contiguous_format)
    # Kernels (O, I, h, w) lie in memory as h, w, I, O: patches then meet them in a matrix product without a copy.
    flipped = p.permute(2, 3, 1, 0)
    return flipped.expand(tasks, *flipped.shape).clone(memory_format=torch.contiguous_format).permute(0, 4, 3, 1, 2)


def choose_execution(execution: str, module: nn.Module, device: torch.device, task_steps: float) -> str:
    """Resolve ``auto``: on a CPU compiled for long work, else grouped; the loop for networks of one's own.

    Args:
        execution: auto, or a choice that is returned as it is.
        module: the network.
        device: where it will run.
        task_steps: how many inner steps of one task there are to do.

    Raises:
        ConfigError: the module has no such form.
    """
    batched = isinstance(module, Conv4)
    if execution == "auto":
        if not batched:
            return "loop"
        worth_compiling = task_steps >= COMPILE_FROM and device.type == "cpu"
        return "compiled" if worth_compiling and _compiler_works() else "grouped"
    if execution != "loop" and not batched:
        raise ConfigError(f"execution {execution} needs a built-in network; {type(module).__name__} runs with loop")
    return execution


@cache
def _compiler_works() -> bool:
    """Whether torch.compile finds a working C++ compiler: asked by compiling next to nothing."""
    try:
        torch.compile(torch.neg)(torch.ones(1))
    except (RuntimeError, OSError):  # no compiler, no Python headers, no room for its files
        return False
    return True


def stacked_forward(module: nn.Module, execution: str) -> StackedForward:
    """The function that runs T copies of ``module``: see :data:`StackedForward`."""
    if isinstance(module, Conv4) and execution == "grouped":
        return module.forward_grouped
    if isinstance(module, Conv4) and execution == "compiled":
        return module.forward_matmul

    def one_by_one(params: Params, x: Tensor) -> Tensor:
        copies = ({name: p[task] for name, p in params.items()} for task in range(len(x)))
        return torch.stack([functional_call(module, copy, (images,)) for copy, images in zip(copies, x, strict=True)])

    return one_by_one


class InnerLoop:
    """Trains T copies of a network, each on its own task."""

    def __init__(self, module: nn.Module, settings: InnerConfig, execution: str) -> None:
        """``execution``: loop, grouped or compiled (see :func:`choose_execution`)."""
        self.settings = settings
        self.forward = stacked_forward(module, execution)
        self._step = self._adam_step if settings.inner_optimizer == "adam" else self._sgd_step
        if execution == "compiled":
            self._step = torch.compile(self._step, dynamic=False)

    def run(self, params: Params, state: InnerState, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Take one inner step per mini-batch, changing ``params`` and ``state`` in place.

        Args:
            params: stacked parameters, (T, ...) each.
            state: with v stacked likewise, (T, ...) each.
            batches: of images (T, B, C, H, W) and labels (T, B).

        Returns:
            (steps, T) each task's cross-entropy at each step.
        """
        losses = []
        for x, y in batches:
            # Counted here because the compiler (torch 2.13) loses in-place changes of a 0-dimensional CPU tensor.
            state.steps.add_(1)
            correction = (1 - BETA2**state.steps).sqrt()
            losses.append(self._step(params, state.v, correction, x, y))
        return torch.stack(losses)

    def loss_and_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """(T,) mean cross-entropy of each task, and its gradient: one task never touches another's."""

        def total(params: Params) -> tuple[Tensor, Tensor]:
            logits = self.forward(params, x)
            losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)
            return losses.sum(), losses

        gradient, losses = torch.func.grad(total, has_aux=True)(params)
        return losses, gradient

    def _adam_step(self, params: Params, v: Params, correction: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Adam with beta1 = 0: the step is the gradient over the root of its running mean square."""
        losses, gradient = self.loss_and_gradient(params, x, y)
        rate = self.settings.inner_lr
        for name, g in gradient.items():
            v[name].mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
            params[name].addcdiv_(g, v[name].sqrt().div_(correction).add_(EPS), value=-rate)
        return losses

    def _sgd_step(self, params: Params, v: Params, correction: Tensor, x: Tensor, y: Tensor) -> Tensor:
        losses, gradient = self.loss_and_gradient(params, x, y)
        for name, g in gradient.items():
            params[name].sub_(g, alpha=self.settings.inner_lr)
        return losses
