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
import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import FrameType
from typing import IO

from torchreptile.core.errors import ConfigError

# How often an idle thread of GNU's OpenMP looks for work before it sleeps, some microseconds. By default it looks for
# milliseconds, on a core that another thread or process needs (measured: docs/speed.md).
SPINS = "2000"
GRACE = 30.0  # seconds in which the others may save and end after one has gone
POLL = 0.1
LAUNCHER = "TORCHREPTILE_LAUNCHER"  # holds the process id of the launcher


def let_idle_threads_sleep() -> None:
    """Do not let torch's idle threads keep cores busy; counts before torch is loaded, where the user says nothing."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def started_by_launcher() -> bool:
    """Whether torchrun or ``--workers`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is the one that writes and shows."""
    return int(os.environ.get("RANK", "0")) == 0


def restarted_by_launcher() -> bool:
    """Whether torchrun started this process again after another one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def attempt() -> int:
    """Which start of all processes on this machine this is, from 0.

    Always 0 where several machines work together: each counts for itself, so the counts may differ
    (there, torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 to restart; pytorch/pytorch#135712).
    """
    alone = int(os.environ.get("GROUP_WORLD_SIZE", "1")) == 1
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if alone else 0


def orphaned() -> bool:
    """Whether ``--workers`` started this process and has gone since."""
    launcher = os.environ.get(LAUNCHER)
    return launcher is not None and os.getppid() != int(launcher)


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run ``python -m torchreptile ARGUMENTS`` in ``count`` processes that know of each other.

    Signals go to all of them. When one ends badly, the others are given time to end by themselves.

    Returns:
        The first process's exit code; another one's where that is the only bad one.

    Raises:
        ConfigError: ``count`` is below 1.
    """
    if count < 1:
        raise ConfigError(f"workers is {count}; it must be at least 1")
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    threads = str(max(1, _cores() // count))
    processes: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    # Ctrl-C reaches the whole group by itself; the launcher only has to outlive it.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, pass_on)
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, count)]
        try:
            for rank in range(count):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank), LAUNCHER: str(os.getpid())}
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "torchreptile", *arguments],
                        env={"OMP_NUM_THREADS": threads, **os.environ, **meeting, **place},
                        stdout=subprocess.DEVNULL if rank else None,
                        stderr=said[rank - 1] if rank else None,
                    )
                )
            codes = _wait(processes)
        finally:
            for process in processes:
                process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        return _verdict(codes, said)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes of all; once one is bad, the others are told to end, and made to after :data:`GRACE`."""
    deadline = float("inf")
    while any(process.poll() is None for process in processes):
        if deadline == float("inf") and any(process.poll() for process in processes):
            deadline = time.monotonic() + GRACE
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(POLL)
    return [process.wait() for process in processes]


def _verdict(codes: Sequence[int], said: Sequence[IO[bytes]]) -> int:
    """The exit code for all, after showing why a process other than the first ended badly by itself."""
    for rank, (code, file) in enumerate(zip(codes[1:], said, strict=True), start=1):
        if code not in (0, codes[0]):
            file.seek(0)
            last = (file.read().decode(errors="replace").strip().splitlines() or [f"ended with exit code {code}"])[-1]
            print(f"process {rank}: {last}", file=sys.stderr)
    return codes[0] or next((code for code in codes if code), 0)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
