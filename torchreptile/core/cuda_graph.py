"""Work on a GPU recorded once as a CUDA graph and replayed: hundreds of small kernels for one launch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from torchreptile.core.errors import first_line

R = TypeVar("R")

WARM_UP = 3  # calls before recording, in which libraries choose algorithms and allocate what they keep


class Recording(Generic[R]):
    """A function without arguments, recorded at the first call and replayed at every call.

    It must read and write the same tensors every time, and draw from ``generator`` alone; a replay draws what
    a plain call would have drawn. What it returns is overwritten by the next call.
    """

    def __init__(self, work: Callable[[], R], generator: torch.Generator, changed: Sequence[Tensor] = ()) -> None:
        """Record nothing yet.

        Args:
            work: the function.
            generator: what it draws from, on its GPU.
            changed: the tensors it changes; put back after the warm-up.
        """
        self._work, self._generator, self._changed = work, generator, changed
        self._replay: Callable[[], R] | None = None

    def __call__(self) -> R:
        """Do the work once."""
        if self._replay is None:
            self._replay = self._recorded()
        return self._replay()

    def _recorded(self) -> Callable[[], R]:
        """A function that replays the work; the work itself where it cannot be recorded."""
        drawn, kept = self._generator.get_state(), [tensor.clone() for tensor in self._changed]

        def put_back() -> None:
            self._generator.set_state(drawn)
            for tensor, before in zip(self._changed, kept, strict=True):
                tensor.copy_(before)

        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._work()
        torch.cuda.current_stream().wait_stream(aside)
        put_back()
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        try:
            with torch.cuda.graph(graph):
                result = self._work()
        except RuntimeError as error:
            warnings.warn(f"cannot be recorded as a CUDA graph, going on without ({first_line(error)})", stacklevel=2)
            put_back()
            return self._work

        def replay() -> R:
            graph.replay()
            return result

        return replay
