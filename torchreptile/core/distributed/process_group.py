"""Several processes that train as one: each computes its share of every meta-batch, and the results are summed.

All processes draw the same tasks from the same generator and hold the same state; the meta-gradients of their shares
are summed, so N processes give the result of one. They are started by torchrun, or by ``--workers N``
(:mod:`torchreptile.core.distributed.launcher`), which set the same environment variables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from traceback import clear_frames

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from torchreptile.core.distributed.launcher import attempt, orphaned, started_by_launcher, stop_with_launcher
from torchreptile.core.distributed.signals import signals_end_this_process
from torchreptile.core.errors import ConfigError, LostProcessError, TorchReptileError, first_line

# Long enough for the others to wait while rank 0 prepares data or a compiler runs.
TIMEOUT = timedelta(minutes=30)


class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: number of this process, from 0; only rank 0 writes files and prints.
        size: number of processes.

    >>> Processes(rank=1, size=2).share(tasks=5)
    slice(2, 5, None)
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """Describe process ``rank`` of ``size``; by default a single process."""
        self.rank, self.size = rank, size

    def share(self, tasks: int) -> slice:
        """Return the tasks of a meta-batch that this process computes: consecutive; shares differ by at most one."""
        return slice(tasks * self.rank // self.size, tasks * (self.rank + 1) // self.size)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes; all are sent in one message.

        Raises:
            LostProcessError: another process was lost.
        """
        if self.size == 1:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        with _lost_processes_named():
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Agree on whether to stop and on the time, so that all processes decide alike.

        Args:
            stop: whether this process wants to stop; one whose launcher has ended always does.
            seconds: the clock of this process; only that of rank 0 counts.

        Returns:
            Whether any process wants to stop, and the clock of rank 0.

        Raises:
            LostProcessError: another process was lost.
        """
        shared = torch.tensor([float(stop or orphaned()), seconds if self.rank == 0 else 0.0], dtype=torch.float64)
        self.sum_([shared])
        return bool(shared[0]), float(shared[1])

    def from_first(self, content: bytes) -> bytes:
        """Return the ``content`` of rank 0 in every process; that of the others is ignored.

        Raises:
            LostProcessError: another process was lost.
        """
        return content if self.size == 1 else self._from(0, content)

    def from_all(self, content: bytes) -> list[bytes]:
        """Return the ``content`` of every process, by rank, in every process.

        Raises:
            LostProcessError: another process was lost.
        """
        return [content] if self.size == 1 else [self._from(rank, content) for rank in range(self.size)]

    def _from(self, rank: int, content: bytes) -> bytes:
        """Return the ``content`` of process ``rank``."""
        length = torch.tensor([len(content)])
        with _lost_processes_named():
            dist.broadcast(length, src=rank)
            if not int(length):
                return b""
            shared = torch.frombuffer(bytearray(content if self.rank == rank else int(length)), dtype=torch.uint8)
            dist.broadcast(shared, src=rank)
        return shared.numpy().tobytes()

    def least(self, number: int) -> int:
        """Return the smallest ``number`` of all processes, in every process.

        Raises:
            LostProcessError: another process was lost.
        """
        return min(int(its) for its in self.from_all(str(number).encode()))

    @contextmanager
    def together(self) -> Iterator[None]:
        """Do in every process what all must succeed in: where it fails in one, all raise an error that names it.

        Raises:
            ConfigError: it failed in another process.
            LostProcessError: another process was lost.
        """
        failure: TorchReptileError | None = None
        try:
            yield
        except TorchReptileError as error:
            failure = error
        messages = self.from_all(str(failure or "").encode())
        if failure is not None:
            raise failure
        for rank, message in enumerate(messages):
            if message:
                raise ConfigError(f"process {rank}: {message.decode()}")


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the process group if a launcher started this process as one of several, and leave it at the end.

    Yields:
        The processes of the run; :data:`ALONE` if this is the only one.

    Raises:
        ConfigError: the other processes cannot be reached.
    """
    if not started_by_launcher():
        yield ALONE
        return
    stop_with_launcher()
    # Tensors on the host go through gloo even where the network is on a GPU: they must not wait for the device.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        with signals_end_this_process():  # while it waits, Python would not see them
            store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
            # The functions of this module hold the process group that exists when it is imported as a default, and
            # torch imports it at any time. It must be imported before there is a group: else that group is never
            # destroyed, nor are gloo's threads, which can abort a process as it ends.
            import_module("torch.distributed.nn.functional")
            # torchrun uses one store for all its attempts: what a lost process left in it must not be found again.
            store = PrefixStore(f"attempt-{attempt()}", store)
            dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"cannot meet the other processes: {first_line(error)}") from error
    try:
        yield Processes(rank, size)
    finally:
        dist.destroy_process_group()


@contextmanager
def _lost_processes_named() -> Iterator[None]:
    """Raise LostProcessError where gloo or NCCL reports a closed connection."""
    try:
        yield
    except RuntimeError as error:
        clear_frames(error.__traceback__)  # the frames hold the group too
        raise LostProcessError(f"another process of this run was lost ({first_line(error)})") from error
