"""One session of a training: its state, clock, measurements and checkpoints."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from torchreptile.core.config import MEASUREMENTS
from torchreptile.core.distributed.signals import StopRequestedError, StopRequests
from torchreptile.core.errors import RunError
from torchreptile.models.execution.execution import Execution
from torchreptile.training.callbacks import Callback, Metrics
from torchreptile.training.checkpoint import Checkpoint, NotFiniteError, save_checkpoint
from torchreptile.training.divergence import diverged
from torchreptile.training.evaluation.divergence import cause, count
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.evaluation.results import Measured
from torchreptile.training.metrics_log import MetricsLog
from torchreptile.training.outer_step import OuterStep
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.setup import TrainingSetup

MEASURING_SHARE = 0.1  # of a training limited by time, at most; without it short ones would do little else
MONITOR_SEED = 1_000_003  # differs from training's seeds; the same episodes at every measurement


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
