"""How many tasks are computed at a time: as many as fit into memory, and fewer if memory runs out after all.

Sums over tasks are rounded chunk by chunk, so a resumed run keeps the sizes it began with.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

R = TypeVar("R")

CPU_TASKS = 20  # more tasks at once only evict each other from the caches
CPU_BYTES = 64 * 2**20  # for the tasks of a chunk whose work is pass after pass over memory
SHARE = 0.25  # of the machine's memory that activations may take: other processes need some too
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class ChunkSizes(NamedTuple):
    """How much is in memory at a time; 0 where that has not been determined.

    Attributes:
        tasks: tasks at a time.
        steps: inner steps at a time whose graph is in memory, of algorithms that differentiate through them.
    """

    tasks: int = 0
    steps: int = 0


NOT_BEGUN = ChunkSizes()


class TaskChunks:
    """Cuts a meta-batch into chunks of at most ``limit`` tasks, and halves the limit when memory runs out.

    Attributes:
        limit: tasks at a time; 0 until it is known.
        steps: inner steps at a time whose graph is in memory, of algorithms that differentiate through them; 0 until
            it is known.

    Example:
        >>> import torch
        >>> chunks = TaskChunks(limit=2, device=torch.device("cpu"))
        >>> chunks.map(slice(0, 6), lambda tasks: tasks.stop - tasks.start)
        [2, 2, 2]
    """

    def __init__(
        self,
        limit: int,
        device: torch.device,
        began: ChunkSizes = NOT_BEGUN,
        agree: Callable[[int], int] = lambda size: size,
    ) -> None:
        """Limit the chunks of tasks computed on ``device``.

        Args:
            limit: tasks at a time; 0 leaves it to :meth:`fit`.
            device: where the tasks are computed.
            began: the sizes that a resumed run was computed with, which it keeps where they fit.
            agree: returns the smallest of the sizes that the processes of a run ask for.
        """
        # Less than was requested if memory ran out before.
        self.limit = began.tasks or limit if limit else 0
        self.steps, self._requested = 0, limit
        self._device, self._began, self._agree = device, began, agree

    @property
    def sizes(self) -> ChunkSizes:
        """The sizes in use, or those that a resumed run began with until they are used."""
        return ChunkSizes(self.limit or self._began.tasks, self.steps or self._began.steps)

    def fit(self, bytes_per_task: int, streams: bool = False) -> None:
        """Set the limit from the size of the memory, unless one was requested.

        The limit depends on the total memory, not on what is free at the moment, so that the same machine always cuts
        the same chunks and numbers repeat to the last bit. A resumed run keeps its limit unless that does not fit into
        this machine's memory; a change is announced.

        Args:
            bytes_per_task: about how much memory one task takes.
            streams: the work is passes over all of that memory, so that on a CPU larger chunks are slower, not faster.
        """
        if self._requested:
            return
        by_memory = max(1, int(SHARE * total_memory(self._device)) // max(bytes_per_task, 1))
        suits = by_memory
        if self._device.type == "cpu":
            by_cache = max(1, CPU_BYTES // max(bytes_per_task, 1)) if streams else CPU_TASKS
            suits = min(by_cache, CPU_TASKS)
        began = self._began.tasks
        self.limit = self._settled(began, min(began or suits, by_memory), "tasks at a time")

    def fit_steps(self, by_memory: int) -> None:
        """Set the inner steps whose graph is in memory at a time; a resumed run keeps its number if that fits.

        Args:
            by_memory: as many as fit into memory.
        """
        began = self._began.steps
        self.steps = self._settled(began, min(began or by_memory, by_memory), "inner steps' graphs at a time")

    def _settled(self, began: int, size: int, what: str) -> int:
        """Return the smallest size of all processes, with a warning if it is not the one the run began with."""
        size = self._agree(size)
        if size < began:
            warnings.warn(
                f"the run was computed with {began} {what} until now, which do not fit into memory here; it continues "
                f"with {size}, so sums may be rounded differently",
                stacklevel=2,
            )
        return size

    def map(self, tasks: slice, work: Callable[[slice], R]) -> list[R]:
        """Call ``work`` on every chunk of ``tasks``, of equal size where possible, and return its results in order.

        A chunk that does not fit into memory is computed again in smaller ones, with a warning.

        Args:
            tasks: the tasks to cut.
            work: computes the tasks of a slice; it must change nothing before it returns.

        Raises:
            torch.OutOfMemoryError: a single task does not fit (on some devices a RuntimeError).
        """
        done: list[R] = []
        start, size = tasks.start, self._chunk(tasks.stop - tasks.start)
        while start < tasks.stop:
            size = min(size, tasks.stop - start)
            try:
                done.append(work(slice(start, start + size)))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if size == 1 or not _is_out_of_memory(error):
                    raise
                self.limit = math.ceil(size / 2)
                too_many, size = size, self._chunk(tasks.stop - start)
            else:
                start += size
                continue
            # Outside the handler, which would keep the failed chunk's tensors alive.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            warnings.warn(
                f"{too_many} tasks at a time do not fit into memory; continuing with {self.limit} (--task-chunk)",
                stacklevel=2,
            )
        return done

    def _chunk(self, tasks: int) -> int:
        """Return the tasks per chunk: a divisor of ``tasks`` unless that is much less than the limit, else nearly even.

        Equal chunks matter because each size is compiled, or recorded as a CUDA graph, separately.
        """
        if not self.limit or tasks <= self.limit:
            return tasks
        even = next(size for size in range(self.limit, 0, -1) if tasks % size == 0)
        return even if 2 * even >= self.limit else math.ceil(tasks / math.ceil(tasks / self.limit))


def total_memory(device: torch.device) -> int:
    """Return the bytes of memory of the device, or the container's limit if that is less than the machine has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 * 2**30
    try:
        return min(machine, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return machine


def saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Return the bytes that autograd saves in one call of ``forward`` for the backward pass."""
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(saved.values())


def _is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` reports exhausted memory; a CPU raises a plain RuntimeError for it."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
