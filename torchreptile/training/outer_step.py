"""One outer step: draw a meta-batch, learn from it, move phi. On a GPU the whole of it is one CUDA graph."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm, MetaGradient, MetaState
from torchreptile.algorithms.optim.outer_optimizer import outer_update
from torchreptile.core.config import OuterConfig
from torchreptile.core.cuda_graph import Recording
from torchreptile.data.samplers import Sampler


def moved(settings: OuterConfig, state: MetaState, learned: MetaGradient, step_size: float | Tensor) -> MetaState:
    """The state after an outer step of that size."""
    params, outer = outer_update(settings, state.params, state.outer, learned.gradient, step_size)
    return replace(state, params=params, inner=learned.inner, outer=outer, averages=learned.averages)


class OuterStep:
    """Moves a state by one outer step.

    On a GPU the step is recorded at its first call and replayed afterwards; the state it returns then lives in
    the same tensors from step to step, so keep a copy of what must stay.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        sampler: Sampler,
        settings: OuterConfig,
        generator: torch.Generator,
        record: bool,
    ) -> None:
        """Prepare.

        Args:
            algorithm: gives the meta-gradient.
            sampler: of training tasks.
            settings: how many tasks, and how phi is moved.
            generator: of tasks and mini-batches.
            record: replay a CUDA graph instead of launching every kernel; the numbers are the same.
        """
        self._algorithm, self._sampler, self._generator = algorithm, sampler, generator
        self._settings = settings
        self._record = record
        self._state: MetaState | None = None
        self._recording: Recording[Tensor] | None = None
        self._step_size = torch.zeros((), device=generator.device)

    def __call__(self, state: MetaState, step_size: float) -> tuple[MetaState, Tensor]:
        """The state after the step, and the mean training loss, ()."""
        if not self._record:
            with self._algorithm.execution.claim():
                return self._step(state, step_size)
        if self._state is None or self._recording is None:
            self._state = state.mapped(torch.Tensor.clone)
            self._recording = Recording(self._step_in_place, self._generator, self._state.tensors())
        elif state is not self._state:
            _write(self._state, state)
        self._step_size.fill_(step_size)
        return self._state, self._recording()

    def _step(self, state: MetaState, step_size: float | Tensor) -> tuple[MetaState, Tensor]:
        episodes = self._sampler.sample(self._settings.meta_batch, self._generator)
        learned = self._algorithm.meta_gradient(state, episodes, self._generator)
        return moved(self._settings, state, learned, step_size), learned.loss

    def _step_in_place(self) -> Tensor:
        assert self._state is not None
        after, loss = self._step(self._state, self._step_size)
        _write(self._state, after)
        return loss


def _write(into: MetaState, state: MetaState) -> None:
    for old, new in zip(into.tensors(), state.tensors(), strict=True):
        old.copy_(new)
