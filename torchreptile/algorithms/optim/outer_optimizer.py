"""The outer step: how a meta-gradient moves the meta-learned parameters, by SGD (Reptile) or Adam (MAML and others).

It works on plain tensors, because its state is stored in checkpoints, and its step size is annealed by the caller and
lives in a recorded CUDA graph on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.core.config import OuterConfig
from torchreptile.models.built_in import Params

BETA1 = 0.9
BETA2 = 0.999
EPS = 1e-8


@dataclass(frozen=True, eq=False)
class OuterState:
    """The outer optimiser's state.

    Attributes:
        m: Adam's first moment by name, shaped like the parameters; empty for SGD.
        v: Adam's second moment by name, shaped like the parameters; empty for SGD.
        steps: () float64 number of steps taken, for bias correction.
    """

    m: Params
    v: Params
    steps: Tensor

    @classmethod
    def fresh(cls, params: Params, optimizer: str) -> OuterState:
        """Return the state before the first step.

        Args:
            params: what is meta-learned, by name.
            optimizer: sgd or adam.
        """
        with_moments = params if optimizer == "adam" else {}
        m, v = ({name: torch.zeros_like(p) for name, p in with_moments.items()} for _ in range(2))
        device = next(iter(params.values())).device
        return cls(m, v, torch.zeros((), dtype=torch.float64, device=device))

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the state, in a fixed order."""
        return [*self.m.values(), *self.v.values(), self.steps]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> OuterState:
        """Return the state with ``change`` applied to every tensor."""
        m, v = ({name: change(t) for name, t in moments.items()} for moments in (self.m, self.v))
        return OuterState(m, v, change(self.steps))


def outer_update(
    settings: OuterConfig, params: Params, state: OuterState, gradient: Params, step_size: float | Tensor
) -> tuple[Params, OuterState]:
    """Return the parameters and the optimiser's state after one outer step; the arguments are not modified.

    sgd: phi <- phi - step size * gradient. adam: Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1, with its default
    decay rates.

    Args:
        settings: the optimiser, and the bound on the gradient.
        params: phi, by name.
        state: the optimiser's state.
        gradient: by name, shaped like ``params``.
        step_size: a number, or a () tensor on the device.

    Example:
        >>> import torch
        >>> from torchreptile.core.config import OuterConfig
        >>> phi, gradient = {"w": torch.ones(2)}, {"w": torch.full((2,), 0.5)}
        >>> settings = OuterConfig(outer_optimizer="sgd")
        >>> outer_update(settings, phi, OuterState.fresh(phi, "sgd"), gradient, step_size=1.0)[0]
        {'w': tensor([0.5000, 0.5000])}
    """
    names = list(params)
    g = _clipped(settings, [gradient[name] for name in names])
    if settings.outer_optimizer == "sgd":
        moved = torch._foreach_sub([params[name] for name in names], torch._foreach_mul(g, step_size))
        return dict(zip(names, moved, strict=True)), state
    steps = state.steps + 1
    m = torch._foreach_lerp([state.m[name] for name in names], g, 1 - BETA1)
    v = torch._foreach_mul([state.v[name] for name in names], BETA2)
    torch._foreach_addcmul_(v, g, g, value=1 - BETA2)
    scale = (step_size / (1 - BETA1**steps)).to(g[0].dtype)
    root = torch._foreach_div(torch._foreach_sqrt(v), (1 - BETA2**steps).sqrt().to(g[0].dtype))
    torch._foreach_add_(root, EPS)
    change = torch._foreach_mul(torch._foreach_div(m, root), scale)
    moved = torch._foreach_sub([params[name] for name in names], change)
    after = OuterState(dict(zip(names, m, strict=True)), dict(zip(names, v, strict=True)), steps)
    return dict(zip(names, moved, strict=True)), after


def _clipped(settings: OuterConfig, gradient: list[Tensor]) -> list[Tensor]:
    """Return the gradient clipped by value or by norm, if a bound is set."""
    bound = settings.outer_clip
    if not bound:
        return gradient
    if settings.outer_clip_by == "value":
        return [g.clamp(-bound, bound) for g in gradient]
    length = torch.stack(torch._foreach_norm(gradient)).norm()
    return list(torch._foreach_mul(gradient, (bound / (length + 1e-6)).clamp(max=1.0)))
