"""One outer step: draw a meta-batch, compute its meta-gradient, update phi. On a GPU the step is one CUDA graph."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.algorithms.optim.outer_optimizer import outer_update
from torchreptile.core.config import OuterConfig
from torchreptile.core.cuda_graph import Recording
from torchreptile.data.samplers import Sampler


def updated(settings: OuterConfig, state: MetaState, gradient: MetaGradient, step_size: float | Tensor) -> MetaState:
    """Return the state after an outer step against a meta-gradient.

    Args:
        settings: the outer optimiser's.
        state: the state before; not modified.
        gradient: the meta-gradient of a meta-batch.
        step_size: the outer step size, a number or a tensor ().
    """
    params, outer = outer_update(settings, state.params, state.outer, gradient.gradient, step_size)
    return replace(state, params=params, inner=gradient.inner, outer=outer, averages=gradient.averages)


class OuterStep:
    """Outer steps of any algorithm, one per call.

    On a GPU the step is recorded at its first call and replayed afterwards; the returned state then occupies the same
    tensors at every step, so clone what must not change.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        sampler: Sampler,
        settings: OuterConfig,
        generator: torch.Generator,
        record: bool,
    ) -> None:
        """Create the step; nothing is computed yet.

        Args:
            algorithm: computes the meta-gradient.
            sampler: draws training tasks.
            settings: tasks per meta-batch, and the outer optimiser.
            generator: draws tasks and mini-batches.
            record: replay a CUDA graph instead of launching every kernel; the numbers are the same.
        """
        self._algorithm, self._sampler, self._generator = algorithm, sampler, generator
        self._settings = settings
        self._record = record
        self._state: MetaState | None = None
        self._recording: Recording[Tensor] | None = None
        self._step_size = torch.zeros((), device=generator.device)

    def __call__(self, state: MetaState, step_size: float) -> tuple[MetaState, Tensor]:
        """Return the state after one outer step of this size, and the mean training loss, ()."""
        if not self._record:
            with self._algorithm.execution.claim():
                return self._step(state, step_size)
        if self._state is None or self._recording is None:
            self._state = state.mapped(torch.Tensor.clone)
            self._recording = Recording(self._step_in_place, self._generator, changed=self._state.tensors())
        elif state is not self._state:
            _write(self._state, state)
        self._step_size.fill_(step_size)
        return self._state, self._recording()

    def _step(self, state: MetaState, step_size: float | Tensor) -> tuple[MetaState, Tensor]:
        episodes = self._sampler.sample(self._settings.meta_batch, self._generator)
        gradient = self._algorithm.meta_gradient(state, episodes, self._generator)
        return updated(self._settings, state, gradient, step_size), gradient.loss

    def _step_in_place(self) -> Tensor:
        assert self._state is not None
        after, loss = self._step(self._state, self._step_size)
        _write(self._state, after)
        return loss


def _write(into: MetaState, state: MetaState) -> None:
    for old, new in zip(into.tensors(), state.tensors(), strict=True):
        old.copy_(new)
