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

# How many times an idle thread of GNU's OpenMP checks for work before it sleeps: some microseconds. By default it spins
# for milliseconds, on a core that another thread or process needs (measured: docs/speed.md).
SPINS = "2000"
GRACE = 30.0  # seconds in which the others may save and end after one has gone
POLL = 0.1  # seconds between two checks of the processes
LAUNCHER = "TORCHREPTILE_LAUNCHER"  # environment variable with the process id of the launcher


def let_idle_threads_sleep() -> None:
    """Keep torch's idle threads from spinning on cores that others need.

    Takes effect only before torch is loaded; environment variables that the user has set are left alone.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def started_by_launcher() -> bool:
    """Return whether torchrun or ``--workers`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Return whether this process is the one of rank 0, which alone writes files and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def restarted_by_launcher() -> bool:
    """Return whether torchrun started this process again after another one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def attempt() -> int:
    """Return how many times torchrun has restarted the processes of this machine.

    Always 0 where several machines work together: each counts its own restarts, so the counts may differ
    (there, torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 to restart; pytorch/pytorch#135712).
    """
    alone = int(os.environ.get("GROUP_WORLD_SIZE", "1")) == 1
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if alone else 0


def orphaned() -> bool:
    """Return whether the launcher that started this process has ended since."""
    launcher = os.environ.get(LAUNCHER)
    return launcher is not None and os.getppid() != int(launcher)


def launch(count: int, arguments: Sequence[str]) -> int:
    """Run ``python -m torchreptile ARGUMENTS`` in ``count`` processes that train together.

    Signals are passed on to all of them. When one fails, the others have :data:`GRACE` seconds to end by themselves.

    Returns:
        The exit code of the first process; if that is 0, the first other one that is not.

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

    # Ctrl-C reaches every process of the group by itself; the launcher only has to outlive them.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, pass_on)
    with ExitStack() as stack:
        errors = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, count)]
        try:
            for rank in range(count):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank), LAUNCHER: str(os.getpid())}
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "torchreptile", *arguments],
                        env={"OMP_NUM_THREADS": threads, **os.environ, **meeting, **place},
                        stdout=subprocess.DEVNULL if rank else None,
                        stderr=errors[rank - 1] if rank else None,
                    )
                )
            codes = _wait(processes)
        finally:
            for process in processes:
                process.kill()
            for number, handler in before.items():
                signal.signal(number, handler)
        return _exit_code(codes, errors)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Return the exit codes of all processes; :data:`GRACE` seconds after one fails, kill the others."""
    deadline = float("inf")
    while any(process.poll() is None for process in processes):
        if deadline == float("inf") and any(process.poll() for process in processes):
            deadline = time.monotonic() + GRACE
        if time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(POLL)
    return [process.wait() for process in processes]


def _exit_code(codes: Sequence[int], errors: Sequence[IO[bytes]]) -> int:
    """Return the common exit code, after printing why a process other than the first failed by itself."""
    for rank, (code, file) in enumerate(zip(codes[1:], errors, strict=True), start=1):
        if code not in (0, codes[0]):
            file.seek(0)
            last = (file.read().decode(errors="replace").strip().splitlines() or [f"ended with exit code {code}"])[-1]
            print(f"process {rank}: {last}", file=sys.stderr)
    return codes[0] or next((code for code in codes if code), 0)


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_port() -> int:
    """Return a TCP port of this machine that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
