"""Work in processes of its own, one or several at a time: what each takes can be told, nothing is left of it for the
next, and trainings too small for all cores share them."""

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

POLL = 0.2  # seconds between two looks at the processes
TOLD = 3  # failures whose messages are told; the others are likely the same

Tell = Callable[[Any], None]


class JobsError(RunError):
    """Jobs failed: the message has their names and reasons."""


@dataclass(frozen=True)
class Job:
    """Something to be done in a process of its own.

    Attributes:
        name: for people, at the beginning of what is said of its failure.
        work: does it, and may tell how it goes; returns the answer, or None if a signal stopped it. It goes to the
            other process by pickle, so it is a function of a module, not of the script that is run.
    """

    name: str
    work: Callable[[Tell], Any]


def do_jobs(
    jobs: Sequence[Job],
    at_once: int,
    threads: int,
    told: Callable[[int, Any], None],
    done: Callable[[int, Any], None],
) -> bool:
    """Do all jobs, so many at a time; one that fails leaves the others to go on.

    Args:
        jobs: in the order in which they begin.
        at_once: how many processes there are at a time.
        threads: of torch in each.
        told: hears what a job tells, with the job's number.
        done: gets its answer.

    Returns:
        False if a signal stopped them; it was passed on. A second signal ends them at once.

    Raises:
        JobsError: jobs failed, after all others were done or stopped.
    """
    waiting, running, failed = list(reversed(range(len(jobs)))), dict[int, _Process](), list[str]()
    with stop_on_signals() as asked:
        try:
            while running or (waiting and not asked()):
                while waiting and len(running) < at_once and not asked():
                    number = waiting.pop()
                    running[number] = _Process(jobs[number], threads)
                wait([its.ours for its in running.values()], POLL)
                for number, process in list(running.items()):
                    if asked():
                        process.stop()
                    gone = process.gone()  # asked first, so that nothing it said last is missed
                    for said in process.heard():
                        told(number, said)
                    if gone:
                        del running[number]
                        if process.failure:
                            failed.append(process.failure)
                        elif process.answer is not None:
                            done(number, process.answer)
        finally:
            for process in running.values():  # a second signal, or what was told could not be used
                process.stop()
            deadline = time.monotonic() + GRACE
            for process in running.values():
                process.end(deadline)
        stopped = asked()
    if failed:
        more = f"; and {len(failed) - TOLD} more" if len(failed) > TOLD else ""
        raise JobsError("; ".join(failed[:TOLD]) + more)
    return not stopped


class _Process:
    """A job's process, from this side."""

    def __init__(self, job: Job, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe(duplex=False)
        self._name, self._stopped = job.name, False
        self._said: tuple[str, Any] = ("", None)
        arguments = (theirs, job.work, threads, os.getpid())
        self._process = context.Process(target=_do, args=arguments, daemon=True)  # it must not outlive this one
        # Until the child has a group of its own, Ctrl-C on the terminal reaches it too; what it inherits ignores that.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if _in_main_thread() else None
        # It would import the script that called, and run it, where nothing guards that: no job needs it.
        script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        try:
            self._process.start()
        finally:
            sys.modules["__main__"] = script
            if before is not None:
                signal.signal(signal.SIGINT, before)
        theirs.close()

    def stop(self) -> None:
        """Ask it, once, to save and end."""
        if not self._stopped:
            self._stopped = True
            self._process.terminate()

    def end(self, deadline: float) -> None:
        """Wait until it has ended, and make it end where that takes too long."""
        while not self.gone():
            self.heard()  # it may wait for somebody to listen
            self._process.join(POLL)
            if time.monotonic() > deadline:
                self._process.kill()

    def gone(self) -> bool:
        """Whether it has ended."""
        return not self._process.is_alive()

    def heard(self) -> list[Any]:
        """What it told since the last time."""
        told = []
        try:
            while self.ours.poll():
                kind, content = self.ours.recv()
                if kind == "told":
                    told.append(content)
                else:
                    self._said = (kind, content)
        except (EOFError, OSError):  # it has nothing more to say, or was killed while it said something
            self._process.join(POLL)
        return told

    @property
    def answer(self) -> Any:
        """What it came to; None if it was stopped."""
        return self._said[1] if self._said[0] == "answer" else None

    @property
    def failure(self) -> str:
        """Why it failed; empty if it did not."""
        kind, content = self._said
        if kind == "failed":
            return content if content.startswith(self._name) else f"{self._name}: {content}"
        if self._stopped or self.answer is not None:
            return ""
        return f"{self._name}: its process ended with exit code {self._process.exitcode}; the same command goes on"


def _in_main_thread() -> bool:
    """Whether Python lets this thread say what signals do."""
    return threading.current_thread() is threading.main_thread()


def _stop_with_parent() -> None:
    """Ask this process to stop once its parent is gone, and again after a while; whatever it does at the moment, for
    the same command may be given again at once, and would find it at work."""
    while not orphaned():
        time.sleep(POLL)
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)


def _do(answer: Connection, work: Callable[[Tell], Any], threads: int, parent: int) -> None:
    """What the process does."""
    if os.name == "posix":
        os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on once
    os.environ[LAUNCHER] = str(parent)  # it saves and ends should the parent be gone
    torch.set_num_threads(threads)
    threading.Thread(target=_stop_with_parent, daemon=True).start()

    def say(kind: str, content: Any) -> None:
        try:
            answer.send((kind, content))
        except OSError:  # nobody listens any more: a training finds out by itself, and saves
            return

    try:
        say("answer", work(lambda content: say("told", content)))
    except TorchReptileError as error:
        say("failed", str(error))
    except (OSError, MemoryError) as error:  # a full disk, no memory: nothing to add to it
        say("failed", str(error) or type(error).__name__)
