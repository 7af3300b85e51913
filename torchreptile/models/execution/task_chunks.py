"""How many tasks are computed at a time: as many as fit into memory, and fewer where they turn out not to fit."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

R = TypeVar("R")

CPU_TASKS = 20  # more at once only push each other out of the caches
CPU_BYTES = 64 * 2**20  # what tasks may take together whose maps go through the caches pass after pass
SHARE = 0.25  # of the machine's memory that activations may take: others live there too
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class TaskChunks:
    """Cuts a meta-batch into pieces of at most ``limit`` tasks, and halves the limit where memory runs out."""

    def __init__(self, limit: int, device: torch.device) -> None:
        """``limit``: tasks at a time; 0 leaves it to :meth:`fit`."""
        self.limit, self._asked, self._device = limit, limit, device

    def fit(self, bytes_per_task: int, streams: bool = False) -> None:
        """Without a limit asked for, take one from the memory there is.

        Args:
            bytes_per_task: about how much one task takes.
            streams: its work is passes over all of that, so that on a CPU more tasks at once are slower, not faster.

        It follows from the size of the memory, not from what is free at the moment: the same machine cuts
        the same way every time, so that numbers repeat to the last bit.
        """
        if self._asked:
            return
        by_memory = max(1, int(SHARE * total_memory(self._device)) // max(bytes_per_task, 1))
        if self._device.type != "cpu":
            self.limit = by_memory
            return
        by_cache = max(1, CPU_BYTES // max(bytes_per_task, 1)) if streams else CPU_TASKS
        self.limit = min(by_memory, by_cache, CPU_TASKS)

    def map(self, tasks: slice, work: Callable[[slice], R]) -> list[R]:
        """``work`` on every piece of ``tasks``, equal ones where that is possible.

        A piece that does not fit into memory is done again in smaller ones, so ``work`` must change nothing
        before it returns.
        """
        done: list[R] = []
        start, size = tasks.start, self._piece(tasks.stop - tasks.start)
        while start < tasks.stop:
            size = min(size, tasks.stop - start)
            try:
                done.append(work(slice(start, start + size)))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if size == 1 or not _is_out_of_memory(error):
                    raise
                self.limit = math.ceil(size / 2)
                too_many, size = size, self._piece(tasks.stop - start)
            else:
                start += size
                continue
            # Out of the handler, which would keep the failed piece's tensors alive.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            warnings.warn(
                f"{too_many} tasks at a time do not fit into memory; going on with {self.limit} (--task-chunk)",
                stacklevel=2,
            )
        return done

    def _piece(self, tasks: int) -> int:
        """Tasks per piece: what divides them evenly if that is not much less than the limit, for every size
        of piece is compiled or recorded anew; else nearly even.
        """
        if not self.limit or tasks <= self.limit:
            return tasks
        even = next(size for size in range(self.limit, 0, -1) if tasks % size == 0)
        return even if 2 * even >= self.limit else math.ceil(tasks / math.ceil(tasks / self.limit))


def total_memory(device: torch.device) -> int:
    """Bytes of memory of the device; of this container, where it is allowed less than the machine has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 * 2**30
    try:
        return min(machine, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no such file, or "max"
        return machine


def saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps from one forward pass for the backward pass."""
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(kept.values())


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
