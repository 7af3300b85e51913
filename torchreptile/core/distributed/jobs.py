"""Jobs in separate processes, one or several at a time.

Each job starts from a fresh process, its memory can be measured, and trainings too small for all cores share them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

import torch

from torchreptile.core.distributed.launcher import GRACE, LAUNCHER, orphaned
from torchreptile.core.distributed.signals import stop_on_signals
from torchreptile.core.errors import RunError, TorchReptileError

POLL = 0.2  # seconds between two checks of the processes
NAMED_FAILURES = 3  # failures reported with their messages; the others likely have the same reasons

Send = Callable[[Any], None]
"""Sends a message, anything that can be pickled, to the parent process."""


class JobsError(RunError):
    """The failure of one or several jobs; the message gives their names and reasons."""


@dataclass(frozen=True)
class Job:
    """Work for a separate process.

    Attributes:
        name: begins the message if the job fails.
        work: the function to run. It may send messages while it runs, and returns the answer, or None if a signal
            stopped it. It is pickled, so it must belong to an importable module, not to the script that is run.
    """

    name: str
    work: Callable[[Send], Any]


def do_jobs(
    jobs: Sequence[Job],
    at_once: int,
    threads: int,
    on_message: Callable[[int, Any], None],
    on_done: Callable[[int, Any], None],
) -> bool:
    """Run all jobs, ``at_once`` at a time; if one fails, the others still run.

    Args:
        jobs: the jobs, in the order in which they start.
        at_once: how many processes run at a time.
        threads: torch threads in each process.
        on_message: called with a job's number and each message it sends.
        on_done: called with a job's number and its answer.

    Returns:
        False if a signal stopped the jobs; it was passed on to them. A second signal ends them at once.

    Raises:
        JobsError: jobs failed; raised after all others were done or stopped.
    """
    waiting, running, failed = list(reversed(range(len(jobs)))), dict[int, _Process](), list[str]()
    with stop_on_signals() as asked:
        try:
            while running or (waiting and not asked()):
                while waiting and len(running) < at_once and not asked():
                    number = waiting.pop()
                    running[number] = _Process(jobs[number], threads)
                wait([process.receiver for process in running.values()], POLL)
                for number, process in list(running.items()):
                    if asked():
                        process.stop()
                    ended = process.ended()  # checked before reading, so that no last message is missed
                    for message in process.receive():
                        on_message(number, message)
                    if ended:
                        del running[number]
                        if process.failure:
                            failed.append(process.failure)
                        elif process.answer is not None:
                            on_done(number, process.answer)
        finally:
            for process in running.values():  # after a second signal, or an error in on_message or on_done
                process.stop()
            deadline = time.monotonic() + GRACE
            for process in running.values():
                process.end(deadline)
        stopped = asked()
    if failed:
        more = f"; and {len(failed) - NAMED_FAILURES} more" if len(failed) > NAMED_FAILURES else ""
        raise JobsError("; ".join(failed[:NAMED_FAILURES]) + more)
    return not stopped


class _Process:
    """A job's process, seen from the parent."""

    def __init__(self, job: Job, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.receiver, sender = context.Pipe(duplex=False)
        self._name, self._stopped = job.name, False
        self._outcome: tuple[str, Any] = ("", None)  # "answer" or "failed", and the content
        arguments = (sender, job.work, threads, os.getpid())
        self._process = context.Process(target=_do, args=arguments, daemon=True)  # it must not outlive the parent
        # Until the child has its own process group, Ctrl-C on the terminal reaches it too: it inherits ignoring that.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if _in_main_thread() else None
        # Without this, the child would import and run the calling script, unless it guards against that.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            self._process.start()
        finally:
            sys.modules["__main__"] = script
            if before is not None:
                signal.signal(signal.SIGINT, before)
        sender.close()

    def stop(self) -> None:
        """Ask the process, once, to save and end."""
        if not self._stopped:
            self._stopped = True
            self._process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until the process has ended; kill it after ``deadline``, in seconds of the monotonic clock."""
        while not self.ended():
            self.receive()  # it may be blocked on a full pipe
            self._process.join(POLL)
            if time.monotonic() > deadline:
                self._process.kill()

    def ended(self) -> bool:
        """Return whether the process has ended."""
        return not self._process.is_alive()

    def receive(self) -> list[Any]:
        """Return the messages sent since the last call, and remember the outcome if it came."""
        messages = []
        try:
            while self.receiver.poll():
                kind, content = self.receiver.recv()
                if kind == "message":
                    messages.append(content)
                else:
                    self._outcome = (kind, content)
        except (EOFError, OSError):  # the pipe is closed, or the process was killed while sending
            self._process.join(POLL)
        return messages

    @property
    def answer(self) -> Any:
        """The result of the work; None if there is none."""
        return self._outcome[1] if self._outcome[0] == "answer" else None

    @property
    def failure(self) -> str:
        """Why the job failed; empty if it did not."""
        kind, content = self._outcome
        if kind == "failed":
            return content if content.startswith(self._name) else f"{self._name}: {content}"
        if self._stopped or self.answer is not None:
            return ""
        return f"{self._name}: its process ended with exit code {self._process.exitcode}; the same command resumes it"


def _in_main_thread() -> bool:
    """Return whether this thread may set signal handlers: in Python only the main thread may."""
    return threading.current_thread() is threading.main_thread()


def _stop_with_parent() -> None:
    """Ask this process to stop once its parent is gone, and again every ``GRACE`` seconds.

    It must stop whatever it is doing: the user may repeat the command at once, which would find the run in use.
    """
    while not orphaned():
        time.sleep(POLL)
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)


def _do(sender: Connection, work: Callable[[Send], Any], threads: int, parent: int) -> None:
    """Run a job; this is the main function of its process."""
    if os.name == "posix":
        os.setpgid(0, 0)  # Ctrl-C then reaches the parent only, which passes it on once
    os.environ[LAUNCHER] = str(parent)  # a training saves and ends when the parent is gone
    torch.set_num_threads(threads)
    threading.Thread(target=_stop_with_parent, daemon=True).start()

    def send(kind: str, content: Any) -> None:
        try:
            sender.send((kind, content))
        except OSError:  # the parent is gone; a training notices that by itself, and saves
            return

    try:
        send("answer", work(lambda content: send("message", content)))
    except TorchReptileError as error:
        send("failed", str(error))
    except (OSError, MemoryError) as error:  # a full disk, no memory: the message says enough
        send("failed", str(error) or type(error).__name__)
