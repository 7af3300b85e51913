"""The training loop: its clock, measurements, checkpoints, and how it is stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import MEASUREMENTS
from torchreptile.core.data_frame import data_frame
from torchreptile.core.device import precision_of
from torchreptile.core.distributed.signals import StopRequestedError, StopRequests, stop_on_signals
from torchreptile.core.errors import LostProcessError, RunError
from torchreptile.models.execution.execution import Execution
from torchreptile.training.callbacks import Callback, Metrics
from torchreptile.training.checkpoint import Checkpoint, NotFiniteError, save_checkpoint
from torchreptile.training.divergence import diverged
from torchreptile.training.evaluation.divergence import cause, count
from torchreptile.training.evaluation.html_table import html_table
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.evaluation.results import Measured
from torchreptile.training.metrics_log import MetricsLog
from torchreptile.training.outer_step import OuterStep
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.setup import TrainingSetup

MEASURING_SHARE = 0.1  # of a training limited by time, at most; without it short ones would do little else
MONITOR_SEED = 1_000_003  # differs from training's seeds; the same episodes at every measurement


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


class TrainingSession:
    """What changes while one process trains: the state, the generator, the clock, the losses since the last line."""

    def __init__(
        self,
        setup: TrainingSetup,
        start: Checkpoint,
        folder: RunFolder,
        callback: Callback,
        log: MetricsLog | None,
        stop: StopRequests,
    ) -> None:
        self._setup, self._start, self._folder, self._callback, self._log = setup, start, folder, callback, log
        self._stop = stop
        self.state, self.step, self._best = start.state, start.step, start.best
        self.measured: dict[str, Measured] = {}
        self._generator = torch.Generator(setup.device)
        try:
            self._generator.set_state(start.generator)
        except (RuntimeError, TypeError) as error:  # it came from the first process, which computes elsewhere
            raise RunError(
                f"{folder.path}: processes compute on different kinds of device, one of them on "
                f"{setup.device}; name the same --device for all"
            ) from error
        self._recorded = setup.device.type == "cuda" and not setup.algorithm.execution.draws
        self._outer_step = OuterStep(
            setup.algorithm, setup.sampler, setup.config.outer, self._generator, record=self._recorded
        )
        # Summed on the device: reading a number after every step would make the host wait for it.
        self._loss_sum = torch.tensor(start.losses[0], dtype=torch.float64, device=setup.device)
        self.unmeasured = start.losses[1]  # outer steps since the last measurement
        self.step_size = start.step_size  # of the last step, which may have been made before this session
        self._chunks = setup.algorithm.chunks.sizes  # as env.json has them
        self._began = time.monotonic()
        self.seconds = start.seconds  # of training, over all sessions, as all processes agreed on before this step
        self._shares = self._shares_done()
        self._warned = False  # whether adaptation diverged in a measurement of this session
        self._measuring = False  # whether the step before this one ended in a measurement
        self._step_took = 0.0  # seconds of the last step without a measurement
        self._measure_again = 0.0  # not before so many seconds of training, if limited by time

    def clock(self) -> float:
        """Seconds of training so far, over all sessions, by this process's clock."""
        return self._start.seconds + time.monotonic() - self._began

    def agree(self, stop: bool) -> bool:
        """Return whether any process is to stop; also sets the common clock, which annealing may follow."""
        before = self.seconds
        stopped, self.seconds = self._setup.processes.agree(stop, self.clock())
        # By the common clock, so that all processes measure at the same steps.
        took = self.seconds - before
        if self._measuring:
            self._measure_again = self.seconds + max(0.0, took - self._step_took) * (1 / MEASURING_SHARE - 1)
            self._measuring = False
        else:
            self._step_took = took
        return stopped

    def done(self) -> float:
        """Return the finished share of the training, from 0 to 1: by steps or by time, whichever is larger."""
        outer = self._setup.config.outer
        by_time = self.seconds / (60 * outer.max_minutes) if outer.max_minutes else 0.0
        return min(1.0, max(self.step / outer.outer_steps, by_time))

    def due(self) -> bool:
        """Whether to measure now: after so many outer steps or, in a training limited by time, so many times in all,
        fewer where that would take too much of it."""
        config = self._setup.config
        by_time = config.outer.max_minutes > 0 and not config.run.monitor_every
        if by_time and self.seconds >= self._measure_again and self._shares_done() > self._shares:
            self._shares = self._shares_done()
            return True
        return self.step % config.monitor_every == 0

    def stopped_before_measuring(self) -> bool:
        """Whether the last session was stopped while it measured."""
        return self.step > 0 and self.unmeasured > 0 and self.step % self._setup.config.monitor_every == 0

    def _go_on(self, done: int) -> None:
        """Let several processes stop together in the middle of a measurement; a single one is interrupted at once."""
        processes = self._setup.processes
        if processes.size > 1 and processes.agree(self._stop(), 0.0)[0]:
            raise StopRequestedError

    def _shares_done(self) -> int:
        """How many of the equal shares of the training, one for each measurement, are over."""
        return int(MEASUREMENTS * self.done())

    def outer_step(self) -> Tensor:
        """Draw a meta-batch, compute its meta-gradient, move phi; return the mean training loss, ().

        Raises:
            StopRequestedError: a signal came during the first step of the session, which compiles for minutes.
        """
        compiles = self.step == self._start.step and _compiles(self._setup.algorithm.execution)
        step_size = self._setup.config.outer.step_size_at(self.done(), self.step)
        try:
            with self._stop.at_once(compiles and not self._recorded and self._setup.processes.size == 1):
                state, loss = self._outer_step(self.state, step_size)
        except StopRequestedError:
            self._generator.set_state(self._start.generator)
            raise
        self.state, self.step_size = state, step_size
        self._loss_sum += loss
        self.unmeasured += 1
        self.step += 1
        return loss

    def measure(self) -> None:
        """Measure on training and validation classes, never on test classes; log, show, and save the best weights."""
        setup, run = self._setup, self._setup.config.run
        loss = float(self._loss_sum) / max(self.unmeasured, 1)
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        if not bool(torch.stack([p.isfinite().all() for p in self.state.params.values()]).all()):  # one wait for a GPU
            raise self._diverged("the weights are not finite")
        with self._stop.at_once(setup.processes.size == 1):
            self.measured = {
                split: measure(setup.algorithm, self.state, sampler, run.monitor_episodes, MONITOR_SEED, self._go_on)
                for split, sampler in setup.monitored.items()
            }
        self._loss_sum.zero_()
        self.unmeasured, self._measuring = 0, True
        if self._log is None:
            return
        metrics = _line(self.step, loss, self.step_size, self.clock(), self.measured)
        self._log.write(metrics)
        self._callback.on_evaluation(self.step, loss, self.measured)
        self._callback.on_metrics(metrics)
        self._warn_of_divergence()
        if "val" in self.measured:  # without validation classes nothing may choose a best checkpoint
            score = self.measured["val"].score(setup.config.evaluation.transductive)
            if score > self._best:
                self._best = score
                self._write(self._checkpoint(self._log), self._folder.best)

    def _warn_of_divergence(self) -> None:
        """Say once a session that adaptation diverged in episodes, as training itself may go well."""
        for split, result in self.measured.items():
            if result.diverged and not self._warned:
                self._warned = True
                what = count(result, {"train": "training ", "val": "validation "}[split])
                self._callback.on_warning(f"adaptation {what}: {cause(self._setup.config)}")

    def save(self) -> Checkpoint:
        """Write, and return, everything needed to resume from here; the first process alone writes it."""
        checkpoint = self._checkpoint(self._log)
        if self._log is not None:
            self._write(checkpoint, self._folder.last)
            self._record_chunks()
        return checkpoint

    def _write(self, checkpoint: Checkpoint, path: Path) -> None:
        """Save a checkpoint; one of a training that diverged is refused, and the last good one stays."""
        try:
            save_checkpoint(checkpoint, path)
        except NotFiniteError as error:
            raise self._diverged(f"{error.what} is not finite") from error
        self._callback.on_checkpoint(path, checkpoint.step)

    def _diverged(self, what: str) -> RunError:
        """The error of a training that diverged: which setting to lower, and what is left."""
        return diverged(self._setup, self._folder, self.step, what)

    def _record_chunks(self) -> None:
        """Name in env.json how many tasks are computed at a time, which is unknown before the first step."""
        if (sizes := self._setup.algorithm.chunks.sizes) != self._chunks:
            self._folder.record_environment(self._setup.environment())
            self._chunks = sizes

    def _checkpoint(self, log: MetricsLog | None) -> Checkpoint:
        """The state, and the metrics that belong to it, which are on disk when this returns."""
        return replace(
            self._start,
            state=self.state,
            step=self.step,
            seconds=self.clock(),
            generator=self._generator.get_state(),
            metrics_bytes=0 if log is None else log.sync(),
            metrics_checksum=None if log is None else log.checksum,
            losses=(float(self._loss_sum), self.unmeasured),
            best=self._best,
            step_size=self.step_size,
            division=self._setup.division(),
        )


def _compiles(execution: Execution) -> bool:
    """Whether the first step that an execution makes waits for a compiler."""
    return execution.compiled or execution.fuses_blocks


def _line(step: int, loss: float, step_size: float, seconds: float, measured: dict[str, Measured]) -> Metrics:
    """One line of metrics.jsonl; accuracies from 0 to 1, mean squared errors, time in seconds."""
    line: Metrics = {
        "step": step,
        "loss": loss,
        "outer_step_size": step_size,
        "seconds": round(seconds, 3),
    }
    for split, result in measured.items():
        for name, accuracy in result.measures().items():
            key = f"{split}_{name.replace(' ', '_')}"
            line[key] = accuracy.mean
            line[f"{key}_ci95"] = accuracy.ci95
    return line
