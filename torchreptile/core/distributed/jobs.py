"""Jobs in separate processes, one or several at a time.

Each job starts from a fresh process, its memory can be measured, and trainings too small for all cores share them.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

import torch

from torchreptile.core.distributed.launcher import GRACE, LAUNCHER, stop_with_launcher
from torchreptile.core.distributed.signals import stop_on_signals
from torchreptile.core.errors import ConfigError, RunError, TorchReptileError, first_line

POLL = 0.2  # seconds between two checks of the processes
NAMED_FAILURES = 3  # failures reported with their messages; the others likely have the same reasons

Send = Callable[[Any], None]
"""Sends a message, anything that can be pickled, to the parent process."""


class JobsError(RunError):
    """The failure of one or several jobs; the message gives their names and reasons."""


def nothing() -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Job:
    """Work for a separate process.

    Attributes:
        name: begins the message if the job fails.
        work: the function to run. It may send messages while it runs, and returns the answer, or None if a signal
            stopped it. It is pickled, so it must belong to an importable module, not to the script that is run.
        prepare: called in the process before ``work`` is unpickled: loads code that ``work`` refers to. Pickled too.
    """

    name: str
    work: Callable[[Send], Any]
    prepare: Callable[[], object] = nothing

    def pickled(self) -> tuple[bytes, bytes]:
        """Return ``prepare`` and ``work`` as a process receives them.

        Raises:
            ConfigError: they refer to what another process cannot import, or hold what cannot be sent.
        """
        with _without_main():
            try:
                return pickle.dumps(self.prepare), pickle.dumps(self.work)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise ConfigError(
                    f"{self.name}: cannot be sent to another process ({first_line(error)}); put the functions and "
                    "classes that it uses into a module, not into the script or notebook that is run"
                ) from error


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
        ConfigError: a job cannot be sent to another process; none was started.
        JobsError: jobs failed; raised after all others were done or stopped.
    """
    sent = [job.pickled() for job in jobs]
    waiting, running, failed = list(reversed(range(len(jobs)))), dict[int, _Process](), list[str]()
    with stop_on_signals() as asked:
        try:
            while running or (waiting and not asked()):
                while waiting and len(running) < at_once and not asked():
                    number = waiting.pop()
                    running[number] = _Process(jobs[number].name, sent[number], threads)
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

    def __init__(self, name: str, pickled: tuple[bytes, bytes], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.receiver, sender = context.Pipe(duplex=False)
        self._name, self._stopped = name, False
        self._outcome: tuple[str, Any] = ("", None)  # "answer" or "failed", and the content
        arguments = (sender, *pickled, threads, os.getpid())
        self._process = context.Process(target=_do, args=arguments, daemon=True)  # it must not outlive the parent
        # Until the child has its own process group, Ctrl-C on the terminal reaches it too: it inherits ignoring that.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if _in_main_thread() else None
        try:
            with _without_main():
                self._process.start()
        finally:
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


@contextmanager
def _without_main() -> Iterator[None]:
    """Take the calling script out of sight: a new process would import it and, unless it is guarded, run it."""
    script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _do(sender: Connection, prepare: bytes, work: bytes, threads: int, parent: int) -> None:
    """Run a job; this is the main function of its process."""
    if os.name == "posix":
        os.setpgid(0, 0)  # Ctrl-C then reaches the parent only, which passes it on once
    os.environ[LAUNCHER] = str(parent)
    stop_with_launcher()  # the user may repeat the command at once, which would find the run in use
    torch.set_num_threads(threads)

    def send(kind: str, content: Any) -> None:
        try:
            sender.send((kind, content))
        except OSError:  # the parent is gone; this process is about to be stopped
            return

    try:
        send("answer", _unpickled(prepare, work)(lambda content: send("message", content)))
    except TorchReptileError as error:
        send("failed", str(error))
    except KeyboardInterrupt:  # a second signal: as if it had been stopped by the first
        send("answer", None)
    except (OSError, MemoryError) as error:  # a full disk, no memory: the message says enough
        send("failed", str(error) or type(error).__name__)


def _unpickled(prepare: bytes, work: bytes) -> Callable[[Send], Any]:
    """Prepare this process for the work, and return the work.

    Raises:
        ConfigError: it refers to what this process cannot import.
    """
    try:
        pickle.loads(prepare)()
        work_here: Callable[[Send], Any] = pickle.loads(work)
    except (pickle.UnpicklingError, ImportError, AttributeError) as error:
        raise ConfigError(f"its work cannot be loaded in another process ({first_line(error)})") from error
    return work_here
