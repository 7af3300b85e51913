"""Work in processes of their own, one or several at a time: a training's memory can be told, nothing is left of it for
the next, and trainings too small for all cores share them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from torchreptile.checkpoint import RunFolder
from torchreptile.config import Config
from torchreptile.environment import peak_mib
from torchreptile.errors import RunError, TorchReptileError
from torchreptile.observers import Observer, Silent
from torchreptile.progress import LiveLine
from torchreptile.trainer import Run, stop_on_signals
from torchreptile.training import resume, train
from torchreptile.workers import LAUNCHER

POLL = 0.2  # seconds between two looks at the processes

Tell = Callable[[Any], None]


@dataclass(frozen=True)
class Job:
    """Something to be done in a process of its own.

    Attributes:
        name: for people, at the beginning of what is said of its failure.
        work: does it, and may tell how it goes; returns the answer, or None if a signal stopped it. It goes to the
            other process by pickle.
    """

    name: str
    work: Callable[[Tell], Any]


def do_apart(
    jobs: Sequence[Job],
    at_once: int,
    threads: int,
    told: Callable[[int, Any], None],
    done: Callable[[int, Any], None],
) -> bool:
    """Do all jobs, so many at a time.

    Args:
        jobs: in the order in which they begin.
        at_once: how many processes there are at a time.
        threads: of torch in each.
        told: hears what a job tells, with the job's number.
        done: gets its answer.

    Returns:
        False if a signal stopped them; it was passed on.

    Raises:
        RunError: a job failed; the others were stopped first.
    """
    waiting, running = list(reversed(range(len(jobs)))), dict[int, _Process]()
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
                        answer = process.answer()
                        if answer is not None:
                            done(number, answer)
        finally:
            for process in running.values():  # one of them failed, or what was told could not be used
                process.stop()
            for process in running.values():
                process.end()
        return not asked()


class _Process:
    """A job's process, from this side."""

    def __init__(self, job: Job, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.ours, theirs = context.Pipe(duplex=False)
        self._job, self._stopped = job, False
        self._last: tuple[str, Any] = ("", None)
        self._process: BaseProcess = context.Process(target=_do, args=(theirs, job.work, threads))
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """Ask it to save and end; once."""
        if not self._stopped:
            self._process.terminate()
            self._stopped = True

    def end(self) -> None:
        """Wait until it has ended."""
        while not self.gone():
            self.heard()  # it may wait for somebody to listen
            self._process.join(POLL)

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
                    self._last = (kind, content)
        except EOFError:  # it has nothing more to say, and is about to end
            self._process.join()
        return told

    def answer(self) -> Any:
        """What it came to; None if it was stopped.

        Raises:
            RunError: it failed.
        """
        kind, content = self._last
        if kind == "answer" and content is not None:
            return content
        if kind == "failed":
            named = content.startswith(self._job.name)
            raise RunError(content if named else f"{self._job.name}: {content}")
        if self._stopped:
            return None
        ended = self._process.exitcode
        raise RunError(f"{self._job.name}: the training ended with exit code {ended}; the same command goes on")


def _do(answer: Connection, work: Callable[[Tell], Any], threads: int) -> None:
    """What the process does."""
    if os.name == "posix":
        os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on once
    os.environ[LAUNCHER] = str(os.getppid())  # it saves and ends should the parent be gone
    torch.set_num_threads(threads)
    try:
        answer.send(("answer", work(lambda content: answer.send(("told", content)))))
    except TorchReptileError as error:
        answer.send(("failed", str(error)))


def train_or_go_on(config: Config, folder: RunFolder, observer: Observer) -> Run:
    """Train, or go on with the run that is there."""
    there = folder.config_file.is_file()
    return resume(folder.path, observer) if there else train(config, folder.path, observer)


def train_apart(config: Config, folder: RunFolder, quiet: bool = False) -> float | None:
    """Train, or go on with the run that is there, in a process of its own.

    Args:
        config: all settings.
        folder: where the run is kept.
        quiet: show nothing on standard error.

    Returns:
        Peak memory of that process in MiB, on a GPU that which torch took there; None if a signal stopped it.

    Raises:
        RunError: the training failed.
    """
    peaks: list[float] = []
    job = Job(str(folder.path), partial(_train, config.to_json(), str(folder.path), quiet))
    do_apart([job], 1, torch.get_num_threads(), lambda *_: None, lambda _, peak: peaks.append(peak))
    return peaks[0] if peaks else None


def _train(config: str, folder: str, quiet: bool, tell: Tell) -> float | None:
    """Its answer is the peak memory."""
    observer = Silent() if quiet else LiveLine(Console(stderr=True))
    run = train_or_go_on(Config.from_json(config), RunFolder(Path(folder)), observer)
    if run.interrupted:
        return None
    device = next(iter(run.state.params.values())).device
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib()
