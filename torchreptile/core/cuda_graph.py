"""CUDA graphs: record GPU work once and replay it, so that hundreds of small kernels cost one launch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from torchreptile.core.errors import first_line

R = TypeVar("R")

WARM_UP = 3  # calls before recording, in which libraries choose algorithms and allocate their buffers


class Recording(Generic[R]):
    """A function without arguments, recorded at the first call and replayed at every call.

    The function must read and write the same tensors every time and draw from ``generators`` only; a replay draws
    what a plain call would have drawn. The next call overwrites the result.
    """

    def __init__(self, work: Callable[[], R], *generators: torch.Generator, changed: Sequence[Tensor] = ()) -> None:
        """Remember the function; it is recorded at the first call.

        Args:
            work: the function.
            generators: the generators it draws from, on its GPU.
            changed: the tensors it changes; they are restored after the warm-up.
        """
        self._work, self._generators, self._changed = work, generators, changed
        self._replay: Callable[[], R] | None = None

    def __call__(self) -> R:
        """Run the work once and return its result."""
        if self._replay is None:
            self._replay = self._record()
        return self._replay()

    def _record(self) -> Callable[[], R]:
        """Return a function that replays the work, or the work itself where it cannot be recorded."""
        generator_states = [generator.get_state() for generator in self._generators]
        originals = [tensor.clone() for tensor in self._changed]

        def restore() -> None:
            for generator, state in zip(self._generators, generator_states, strict=True):
                generator.set_state(state)
            for tensor, original in zip(self._changed, originals, strict=True):
                tensor.copy_(original)

        side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side_stream):
            for _ in range(WARM_UP):
                self._work()
        torch.cuda.current_stream().wait_stream(side_stream)
        restore()
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            with torch.cuda.graph(graph):
                result = self._work()
        except RuntimeError as error:
            warnings.warn(f"cannot be recorded as a CUDA graph, continuing without ({first_line(error)})", stacklevel=2)
            restore()
            return self._work

        def replay() -> R:
            graph.replay()
            return result

        return replay
