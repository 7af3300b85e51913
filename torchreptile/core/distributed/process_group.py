"""Several processes that train as one: each takes its share of every meta-batch, sums go around.

All processes draw the same tasks from the same generator and hold the same state; what they learn from
their own tasks is summed, so N processes give what one process gives. Started by torchrun, or by
``--workers N`` (:mod:`torchreptile.core.distributed.launcher`); both set the same environment variables.
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

from torchreptile.core.distributed.launcher import attempt, orphaned, started_by_launcher
from torchreptile.core.errors import ConfigError, LostProcessError, first_line

# Long enough for the others while rank 0 prepares data or a compiler works.
TIMEOUT = timedelta(minutes=30)


class Processes:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: this process, from 0; rank 0 alone writes and shows.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        """By default one process alone."""
        self.rank, self.size = rank, size

    def share(self, tasks: int) -> slice:
        """The tasks of a meta-batch that this process computes: consecutive, sizes differ by one at most."""
        return slice(tasks * self.rank // self.size, tasks * (self.rank + 1) // self.size)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one message.

        Raises:
            LostProcessError: another process has gone.
        """
        if self.size == 1:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        with _lost_processes_named():
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def agree(self, stop: bool, seconds: float) -> tuple[bool, float]:
        """Whether any process wants to stop, and rank 0's clock, so that all decide alike.

        A process whose launcher has gone wants to stop.

        Raises:
            LostProcessError: another process has gone.
        """
        told = torch.tensor([float(stop or orphaned()), seconds if self.rank == 0 else 0.0], dtype=torch.float64)
        self.sum_([told])
        return bool(told[0]), float(told[1])

    def from_first(self, content: bytes) -> bytes:
        """Rank 0's bytes; what the others give is ignored.

        Raises:
            LostProcessError: another process has gone.
        """
        if self.size == 1:
            return content
        length = torch.tensor([len(content)])
        with _lost_processes_named():
            dist.broadcast(length, src=0)
            told = torch.frombuffer(bytearray(content if self.rank == 0 else int(length)), dtype=torch.uint8)
            dist.broadcast(told, src=0)
        return bytes(told.tolist())


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """Meet the other processes, if there are any; part from them at the end.

    Raises:
        ConfigError: the others cannot be reached.
    """
    if not started_by_launcher():
        yield ALONE
        return
    # Messages of the host go by gloo even where tensors live on GPUs: they must not wait for the device.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
        # Its functions hold the group of the moment of its import as a default, and torch imports it at will: before
        # there is a group, or that group never dies, and with it gloo's threads, which can abort an ending process.
        import_module("torch.distributed.nn.functional")
        # torchrun keeps one store for all its attempts: what a lost process left there must not be found again.
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
    try:
        yield
    except RuntimeError as error:  # gloo and NCCL report a closed connection so
        clear_frames(error.__traceback__)  # they hold the group too
        raise LostProcessError(f"another process of this run was lost ({first_line(error)})") from error
