"""The training loop: its clock, measurements, checkpoints, and how it is stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchreptile.algorithms.base import MetaState
from torchreptile.core.config import MEASUREMENTS
from torchreptile.core.device import precision_of
from torchreptile.core.distributed.signals import stop_on_signals
from torchreptile.core.errors import ConfigError, LostProcessError, RunError
from torchreptile.training.callbacks import Callback, Metrics
from torchreptile.training.checkpoint import Checkpoint, save_checkpoint
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
        measured: the last accuracies, or errors, by split.
    """

    folder: Path
    state: MetaState
    step: int
    interrupted: bool
    measured: dict[str, Measured]

    def metrics_frame(self) -> Any:
        """Return metrics.jsonl as a pandas DataFrame: a row per measurement, indexed by outer step.

        Raises:
            ConfigError: pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise ConfigError("pandas is not installed; pip install pandas")
        return import_module("pandas").DataFrame(RunFolder(self.folder).metrics()).set_index("step")


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
            session = TrainingSession(setup, start, self.folder, callback, log)
            try:
                callback.on_start(self.folder.path, setup.config, start.step, setup.algorithm.execution)
                yield from self._steps(session, stop)
                interrupted = session.done() < 1
                if not interrupted and session.unmeasured:
                    session.measure()
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
        return MetricsLog(self.folder.metrics_file, start.metrics_bytes)


class TrainingSession:
    """What changes while one process trains: the state, the generator, the clock, the losses since the last line."""

    def __init__(
        self, setup: TrainingSetup, start: Checkpoint, folder: RunFolder, callback: Callback, log: MetricsLog | None
    ) -> None:
        self._setup, self._start, self._folder, self._callback, self._log = setup, start, folder, callback, log
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
        self._outer_step = OuterStep(
            setup.algorithm,
            setup.sampler,
            setup.config.outer,
            self._generator,
            record=setup.device.type == "cuda" and not setup.algorithm.execution.draws,
        )
        # Summed on the device: reading a number after every step would make the host wait for it.
        self._loss_sum = torch.tensor(start.losses[0], dtype=torch.float64, device=setup.device)
        self.unmeasured = start.losses[1]  # outer steps since the last measurement
        self.step_size = 0.0
        self._began = time.monotonic()
        self.seconds = start.seconds  # of training, over all sessions, as all processes agreed on before this step
        self._shares = self._shares_done()
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

    def _shares_done(self) -> int:
        """How many of the equal shares of the training, one for each measurement, are over."""
        return int(MEASUREMENTS * self.done())

    def outer_step(self) -> Tensor:
        """Draw a meta-batch, compute its meta-gradient, move phi; return the mean training loss, ()."""
        self.step_size = self._setup.config.outer.step_size_at(self.done(), self.step)
        self.state, loss = self._outer_step(self.state, self.step_size)
        self._loss_sum += loss
        self.unmeasured += 1
        self.step += 1
        return loss

    def measure(self) -> None:
        """Measure on training and validation classes, never on test classes; log, show, and save the best weights."""
        setup, run = self._setup, self._setup.config.run
        loss = float(self._loss_sum) / max(self.unmeasured, 1)
        if not math.isfinite(loss):
            raise RunError(
                f"{self._folder.path}: training diverged before outer step {self.step} (the loss is {loss}); "
                f"start again with a smaller --inner-lr than {setup.config.inner.inner_lr}"
            )
        self.measured = {
            split: measure(setup.algorithm, self.state, sampler, run.monitor_episodes, MONITOR_SEED)
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
        if "val" in self.measured:  # without validation classes nothing may choose a best checkpoint
            score = self.measured["val"].score(setup.config.evaluation.transductive)
            if score > self._best:
                self._best = score
                self._write(self._checkpoint(self._log), self._folder.best)

    def save(self) -> Checkpoint:
        """Write, and return, everything needed to resume from here; the first process alone writes it."""
        checkpoint = self._checkpoint(self._log)
        if self._log is not None:
            self._write(checkpoint, self._folder.last)
        return checkpoint

    def _write(self, checkpoint: Checkpoint, path: Path) -> None:
        save_checkpoint(checkpoint, path)
        self._callback.on_checkpoint(path, checkpoint.step)

    def _checkpoint(self, log: MetricsLog | None) -> Checkpoint:
        """The state, and the metrics that belong to it, which are on disk when this returns."""
        return replace(
            self._start,
            state=self.state,
            step=self.step,
            seconds=self.clock(),
            generator=self._generator.get_state(),
            metrics_bytes=0 if log is None else log.sync(),
            losses=(float(self._loss_sum), self.unmeasured),
            best=self._best,
        )


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
