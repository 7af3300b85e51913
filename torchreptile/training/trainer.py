"""The training loop: its steps, and how it starts, stops and ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.data_frame import data_frame
from torchreptile.core.device import precision_of
from torchreptile.core.distributed.signals import StopRequestedError, stop_on_signals
from torchreptile.core.errors import LostProcessError
from torchreptile.training.callbacks import Callback
from torchreptile.training.checkpoint import Checkpoint
from torchreptile.training.evaluation.html_table import html_table
from torchreptile.training.evaluation.results import Measured
from torchreptile.training.metrics_log import MetricsLog
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.session import TrainingSession
from torchreptile.training.setup import TrainingSetup


@dataclass(frozen=True, eq=False)
class Run:
    """A training session that has ended.

    Attributes:
        folder: where its files are.
        state: what was meta-learned.
        step: outer steps done.
        interrupted: True if a signal, or a ``break`` in the loop, ended it early; it can be resumed.
        measured: the session's last accuracies, or errors, by split; empty if it measured none, as where a finished run
            is resumed.
    """

    folder: Path
    state: MetaState
    step: int
    interrupted: bool
    measured: dict[str, Measured]

    def __repr__(self) -> str:
        """Return folder, outer steps and measurements on one line, without the weights."""
        measured = "".join(f", {split} {result}" for split, result in self.measured.items())
        return f"Run({self.folder}, {self.step:,} outer steps{', interrupted' if self.interrupted else ''}{measured})"

    def _repr_html_(self) -> str:
        """Return a table for Jupyter."""
        steps = f"{self.step:,}" + (" (interrupted; it can be resumed)" if self.interrupted else "")
        return html_table({"run folder": self.folder, "outer steps": steps} | self.measured)

    def metrics_frame(self) -> Any:
        """Return metrics.jsonl as a pandas DataFrame: a row per measurement, indexed by outer step.

        Raises:
            ConfigError: pandas is not installed.
        """
        return data_frame(RunFolder(self.folder).metrics()).set_index("step")


class Step(NamedTuple):
    """One outer step, as iterating over a :class:`Trainer` yields it.

    Attributes:
        step: outer steps done, this one included.
        loss: () mean training loss of the meta-batch, on the training's device; reading it waits for a GPU.
        state: the state after the step.
        step_size: the outer step size it was made with.

    On a GPU the next step overwrites ``loss`` and the tensors of ``state``; clone what must stay.
    """

    step: int
    loss: Tensor
    state: MetaState
    step_size: float


class Trainer:
    """The outer loop of one training: iterate over it, or call :meth:`run`.

    It measures, saves checkpoints, writes metrics.jsonl and calls callbacks as it goes. A ``break`` stops the
    training and saves it, as Ctrl-C does; iterating again continues it. :func:`torchreptile.training_loop` makes one.

    Attributes:
        setup: what stays the same: settings, algorithm, samplers.
        folder: the run folder.
        result: the last session that ended, None before.
    """

    def __init__(
        self, setup: TrainingSetup, start: Checkpoint, folder: RunFolder, callback: Callback | None = None
    ) -> None:
        """Prepare a training that has not started.

        Args:
            setup: settings, algorithm and samplers.
            start: the state to start from.
            folder: locked by the caller; the first process writes metrics and checkpoints into it.
            callback: receives the events of the training.
        """
        self.setup, self.folder, self.callback = setup, folder, callback or Callback()
        self.result: Run | None = None
        self._start = start

    def run(self) -> Run:
        """Train to the end, or until a signal asks to stop."""
        for _ in self:
            pass
        assert self.result is not None
        return self.result

    def __iter__(self) -> Iterator[Step]:
        """Yield every outer step once it is made, and measured, saved and shown where that is due."""
        setup, start, callback = self.setup, self._start, self.callback
        precision = precision_of(setup.device, setup.config.run.precision)
        with stop_on_signals() as stop, precision, self._log(start) as log:
            session = TrainingSession(setup, start, self.folder, callback, log, stop)
            try:
                callback.on_start(self.folder.path, setup.config, start.step, setup.algorithm.execution)
                try:
                    yield from self._steps(session, stop)
                    interrupted = session.done() < 1
                    if not interrupted and session.unmeasured:
                        session.measure()
                except StopRequestedError:
                    interrupted = True
                self._end(session, interrupted)
            except GeneratorExit:
                self._end(session, interrupted=session.done() < 1 or session.unmeasured > 0)
                raise
            except LostProcessError as error:
                callback.on_exception(error)
                raise LostProcessError(f"{error}; resume with --resume {self.folder.path}") from error
            except BaseException as error:
                callback.on_exception(error)
                raise

    def _steps(self, session: TrainingSession, stop: Callable[[], bool]) -> Iterator[Step]:
        """Make outer steps until the training is over or was asked to stop."""
        saved_at, before = time.monotonic(), session.seconds
        if session.stopped_before_measuring():
            session.measure()
        while not session.agree(stop()) and session.done() < 1:
            loss = session.outer_step()
            if session.due():
                session.measure()
            self.callback.on_step(session.step, session.done(), session.seconds - before)
            if time.monotonic() - saved_at >= 60 * self.setup.config.run.save_minutes:
                session.save()
                saved_at = time.monotonic()
            yield Step(session.step, loss, session.state, session.step_size)

    def _end(self, session: TrainingSession, interrupted: bool) -> None:
        """Save, so that the training can be resumed from here, and report the end."""
        self._start = session.save()
        self.result = Run(self.folder.path, session.state, session.step, interrupted, session.measured)
        self.callback.on_end(self.folder.path, session.step, interrupted)

    def _log(self, start: Checkpoint) -> AbstractContextManager[MetricsLog | None]:
        """The metrics file, cut back to what ``start`` knows of; the first process alone has one."""
        if self.setup.processes.rank > 0:
            return nullcontext()
        return MetricsLog(self.folder.metrics_file, start.metrics_bytes, start.metrics_checksum)
