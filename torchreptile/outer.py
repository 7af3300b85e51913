"""One outer step: draw a meta-batch, learn from it, move phi. On a GPU the whole of it is one CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from torchreptile.algorithms import Algorithm, MetaState
from torchreptile.episodes import EpisodeSampler
from torchreptile.inner import InnerState, Params
from torchreptile.recording import Recording


def outer_update(params: Params, gradient: Params, step_size: float | Tensor) -> Params:
    """phi <- phi - step size * meta-gradient."""
    names = list(params)
    scaled = torch._foreach_mul([gradient[name] for name in names], step_size)
    return dict(zip(names, torch._foreach_sub([params[name] for name in names], scaled), strict=True))


class OuterStep:
    """Moves a state by one outer step.

    On a GPU the step is recorded at its first call and replayed afterwards; the state it returns then lives in
    the same tensors from step to step, so keep a copy of what must stay.
    """

    def __init__(
        self, algorithm: Algorithm, sampler: EpisodeSampler, meta_batch: int, generator: torch.Generator, record: bool
    ) -> None:
        """``record``: use a CUDA graph; the sampler's store must be on a GPU."""
        self._algorithm, self._sampler, self._meta_batch = algorithm, sampler, meta_batch
        self._generator, self._record = generator, record
        self._state: MetaState | None = None
        self._recording: Recording[Tensor] | None = None
        self._step_size = torch.zeros((), device=generator.device)

    def __call__(self, state: MetaState, step_size: float) -> tuple[MetaState, Tensor]:
        """The state after the step, and the mean training loss, ()."""
        if not self._record:
            return self._step(state, step_size)
        if self._state is None or self._recording is None:
            self._state = _copy(state)
            self._recording = Recording(self._step_in_place, self._generator, _tensors(self._state))
        elif state is not self._state:
            _write(self._state, state)
        self._step_size.fill_(step_size)
        return self._state, self._recording()

    def _step(self, state: MetaState, step_size: float | Tensor) -> tuple[MetaState, Tensor]:
        episodes = self._sampler.sample(self._meta_batch, self._generator)
        learned = self._algorithm.meta_gradient(state, episodes, self._generator)
        return MetaState(outer_update(state.params, learned.gradient, step_size), learned.inner), learned.loss

    def _step_in_place(self) -> Tensor:
        assert self._state is not None
        moved, loss = self._step(self._state, self._step_size)
        _write(self._state, moved)
        return loss


def _tensors(state: MetaState) -> list[Tensor]:
    return [*state.params.values(), *state.inner.v.values(), state.inner.steps]


def _copy(state: MetaState) -> MetaState:
    params = {name: p.clone() for name, p in state.params.items()}
    return MetaState(
        params, InnerState({name: v.clone() for name, v in state.inner.v.items()}, state.inner.steps.clone())
    )


def _write(into: MetaState, state: MetaState) -> None:
    for old, new in zip(_tensors(into), _tensors(state), strict=True):
        old.copy_(new)
