"""How an algorithm's tasks are computed: in chunks that fit into memory, divided among processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.core.distributed.process_group import Processes
from torchreptile.core.random_state import seeded
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.task_chunks import TaskChunks


@dataclass(frozen=True, eq=False)
class ExecutionContext:
    """How an algorithm computes; results depend on it in rounding only.

    Attributes:
        execution: how T copies of the network are computed.
        chunks: how many tasks are computed at a time.
        processes: the processes that share the tasks.
    """

    execution: Execution
    chunks: TaskChunks
    processes: Processes

    def map_tasks(self, work: Callable[[slice], Tensor], blank: Tensor) -> Tensor:
        """Compute ``work`` for all tasks, in chunks and divided among the processes: (rows, T, ...).

        Args:
            work: maps a slice of tasks to (rows, tasks of the slice, ...).
            blank: (rows, T, ...) zeros, overwritten with the result.
        """
        share = self.processes.share(blank.shape[1])
        if parts := self.chunks.map(share, work):
            blank[:, share] = torch.cat(parts, dim=1)
        self.processes.sum_([blank])
        return blank

    @contextmanager
    def network_draws(self, generator: torch.Generator) -> Iterator[None]:
        """Make the network's own random numbers (Dropout) depend on ``generator`` while the context lasts."""
        if not self.execution.draws:
            yield
            return
        device = generator.device
        with seeded(int(torch.randint(2**62, (), generator=generator, device=device)), device):
            yield

    def described(self, device: torch.device) -> dict[str, str | int]:
        """Return what rounding depends on, for env.json and evaluations, by name.

        ``execution``, ``device`` and ``processes``; ``library``, the native library's key, where that computes;
        ``task_chunk`` (tasks computed at a time) and ``unrolled_steps`` (inner steps whose graph is in memory at a
        time) once they are determined.

        Args:
            device: where it computes.
        """
        names: dict[str, str | int] = {"device": str(device), "execution": self.execution.name}
        if self.execution.library:
            names["library"] = self.execution.library
        tasks, steps = self.chunks.sizes
        numbers = {"processes": self.processes.size, "task_chunk": tasks, "unrolled_steps": steps}
        return names | {name: number for name, number in numbers.items() if number}
