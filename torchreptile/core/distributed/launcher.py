"""Start several processes of this program on one machine, as torchrun would; imports no torch.

On a CPU one single-threaded process per core is faster than one process with as many threads.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from types import FrameType
from typing import IO

from torchreptile.core.distributed.signals import HANGUPS, ORDERS, STOPPED
from torchreptile.core.errors import ConfigError
from torchreptile.core.streams import say

# How many times an idle thread of GNU's OpenMP checks for work before it sleeps: some microseconds. By default it spins
# for milliseconds, on a core that another thread or process needs (measured: docs/speed.md).
SPINS = "2000"
GRACE = 30.0  # seconds in which the others may save and end after one has gone
POLL = 0.1  # seconds between two checks of the processes
SAY_SECONDS = 3.0  # in which rank 0 may say by itself what another one was refused for
LOST = 3  # exit code of a process that ends because another one was lost
PROGRAM = ("-m", "torchreptile")
LAUNCHER = "TORCHREPTILE_LAUNCHER"  # environment variable with the process id of the launcher


def let_idle_threads_sleep() -> None:
    """Keep torch's idle threads from spinning on cores that others need.

    Takes effect only before torch is loaded; environment variables that the user has set are left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def launcher_number(name: str, default: int = 0) -> int:
    """Return a number that torchrun or ``--workers`` gave to this process in its environment.

    Args:
        name: the environment variable.
        default: what it is where there is none.

    Raises:
        ConfigError: it is not a number of a process.

    Example:
        >>> launcher_number("TORCHREPTILE_NO_SUCH_VARIABLE", 1)
        1
    """
    text = os.environ.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise ConfigError(
            f"the environment variable {name} is {text[:50]!r}; it must be a number, as torchrun sets it; unset it"
        )
    return int(text)


def started_by_launcher() -> bool:
    """Return whether torchrun or ``--workers`` started this process as one of several."""
    return launcher_number("WORLD_SIZE", 1) > 1


def is_first() -> bool:
    """Return whether this process is the one of rank 0, which alone writes files and prints."""
    return launcher_number("RANK") == 0


def restarted_by_launcher() -> bool:
    """Return whether torchrun started this process again after another one was lost."""
    return launcher_number("TORCHELASTIC_RESTART_COUNT") > 0


def attempt() -> int:
    """Return how many times torchrun has restarted the processes of this machine.

    Always 0 where several machines work together: each counts its own restarts, so the counts may differ
    (there, torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 to restart; pytorch/pytorch#135712).
    """
    alone = launcher_number("GROUP_WORLD_SIZE", 1) == 1
    return launcher_number("TORCHELASTIC_RESTART_COUNT") if alone else 0


def orphaned() -> bool:
    """Return whether the launcher that started this process has ended since."""
    return LAUNCHER in os.environ and os.getppid() != launcher_number(LAUNCHER)


def stop_with_launcher() -> None:
    """Watch the launcher of this process, if it has one, and stop this process once that has ended.

    Waiting for the other processes, or for a compiler, this process would otherwise notice it late or never.
    """
    if LAUNCHER in os.environ:
        _watch(launcher_number(LAUNCHER))
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        _watch(os.getppid())


@cache
def _watch(parent: int) -> None:
    """Start, once, a thread that waits for the end of ``parent`` and then stops this process."""

    def stop() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # to save; at once; whatever it is doing
            os.kill(os.getpid(), number)
            time.sleep(GRACE)

    threading.Thread(target=stop, daemon=True).start()


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run ``python -m torchreptile ARGUMENTS`` in ``count`` processes that train together.

    Signals are passed on to all of them. The first process that fails is named on standard error at once; the others
    are asked to end and have :data:`GRACE` seconds to do so.

    Returns:
        The exit code of the process that failed first, 128 + N if signal N killed it; 0 if none failed.

    Raises:
        ConfigError: ``count`` is below 1.
    """
    if count < 1:
        raise ConfigError(f"workers is {count}; it must be at least 1")
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    threads = str(max(1, _cores() // count))
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, count)]
        stopped = stack.enter_context(_signals_passed_on(processes))
        try:
            for rank in range(count):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank), LAUNCHER: str(os.getpid())}
                processes.append(
                    subprocess.Popen(
                        [sys.executable, *PROGRAM, *arguments],
                        env={"OMP_NUM_THREADS": threads, **os.environ, **meeting, **place},
                        stdout=subprocess.DEVNULL if rank else None,
                        stderr=errors[rank - 1] if rank else None,
                    )
                )
            return _Watched(processes, errors, stopped).exit_code()
        finally:
            for process in processes:
                process.kill()
                process.wait()


@contextmanager
def _signals_passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[Callable[[], bool]]:
    """Pass signals on to the processes; yield a function that returns whether there was one that asks to stop."""
    asked = False

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if number != signal.SIGINT:  # Ctrl-C reaches every process of the terminal by itself
            for process in processes:
                process.send_signal(number)

    before = {number: signal.signal(number, receive) for number in ORDERS}
    for number in HANGUPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            before[number] = signal.signal(number, receive)
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Watched:
    """The started processes, until all have ended."""

    def __init__(
        self, processes: Sequence[subprocess.Popen[bytes]], errors: Sequence[IO[bytes]], stopped: Callable[[], bool]
    ) -> None:
        self._processes, self._errors, self._stopped = processes, errors, stopped
        self._since: float | None = None  # when the first one ended with another exit code than 0
        self._failed: int | None = None  # the first one that failed by itself
        self._named = self._terminated = False

    def exit_code(self) -> int:
        """Wait for all processes, name the first that fails, end the others; return the exit code of all."""
        while any(process.poll() is None for process in self._processes):
            self._look()
            time.sleep(POLL)
        self._look()
        codes = [process.wait() for process in self._processes]
        if self._stopped() and codes[0] < 0:  # before it could print anything
            say("stopped")
            return STOPPED
        if self._stopped() or self._failed is None:
            return next(filter(None, codes), 0)
        return codes[self._failed] if codes[self._failed] > 0 else 128 - codes[self._failed]

    def _look(self) -> None:
        """Look at how the processes are, and act on what has changed."""
        if self._since is None and any(process.poll() for process in self._processes):
            self._since = time.monotonic()
        if self._since is None:
            return
        waited = time.monotonic() - self._since
        if self._failed is None and not self._stopped():
            self._failed = self._first_failed()
        if self._failed is not None and not self._named and self._to_be_named(self._failed, waited):
            self._name(self._failed)
        if self._failed is not None and not self._terminated and waited > SAY_SECONDS:
            self._terminated = True
            for process in self._processes:
                process.terminate()
        if waited > GRACE:
            for process in self._processes:
                process.kill()

    def _first_failed(self) -> int | None:
        """The process that failed by itself, not for the loss of another one."""
        codes = {rank: process.poll() for rank, process in enumerate(self._processes)}
        failed = {rank: code for rank, code in codes.items() if code not in (None, 0, STOPPED, LOST)}
        # Of those found together, one that was killed is the reason of the others.
        return min(failed, key=lambda rank: ((failed[rank] or 0) > 0, rank), default=None)

    def _to_be_named(self, rank: int, waited: float) -> bool:
        """Whether nobody else names the failure: rank 0 prints why it was refused, and others may be refused alike."""
        code, first = self._processes[rank].returncode, self._processes[0].poll()
        return code < 0 or (rank > 0 and first != code and (first is not None or waited >= SAY_SECONDS))

    def _name(self, rank: int) -> None:
        """Print which process failed, how, and the last line it printed."""
        code = self._processes[rank].returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        last = _last_line(self._errors[rank - 1]) if rank else ""
        say(f"process {rank} {how}" + (f": {last}" if last else ""))
        self._named = True


def _last_line(file: IO[bytes]) -> str:
    """Return the last line of what a process wrote; empty if there is none."""
    file.seek(0)
    return (file.read().decode(errors="replace").strip().splitlines() or [""])[-1].removeprefix("reptile: ")


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_port() -> int:
    """Return a TCP port of this machine that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
