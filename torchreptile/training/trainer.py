"""What goes on inside a training: the loop, its clock, measurements, checkpoints, and how it is stopped."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from torchreptile.algorithms import build_algorithm
from torchreptile.algorithms.base import Algorithm, MetaState
from torchreptile.algorithms.optim.inner_loop import shapes
from torchreptile.core.config import MEASUREMENTS, Config
from torchreptile.core.device import choose_device, keep_freed_memory, precision_of
from torchreptile.core.distributed.process_group import Processes
from torchreptile.core.distributed.signals import stop_on_signals
from torchreptile.core.environment import environment
from torchreptile.core.errors import ConfigError, LostProcessError, RunError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.leakage import find_leaks, without_leaks
from torchreptile.data.loading import load_functions, load_splits
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.data.splits import Splits
from torchreptile.models.blueprint import Network
from torchreptile.training.callbacks import Observer, Silent
from torchreptile.training.checkpoint import Checkpoint, save_checkpoint
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.evaluation.results import Measured
from torchreptile.training.metrics_log import MetricsLog, require_tensorboard
from torchreptile.training.outer_step import OuterStep
from torchreptile.training.run_folder import RunFolder

MEASURING_SHARE = 0.1  # of a training limited by time, at most; without it short ones would do little else
# For choosing the execution of a run limited by time: about so long on two CPU cores, and on a GPU.
SECONDS_PER_TASK_STEP = {"cpu": 0.003, "cuda": 0.00015}
MONITOR_SEED = 1_000_003  # apart from training's seeds; the same episodes at every measurement


@dataclass(frozen=True, eq=False)
class Run:
    """A training that has ended, or was told to stop.

    Attributes:
        folder: where its files are.
        state: what was learned.
        step: outer steps done.
        interrupted: True if a signal ended it; it can be resumed.
        measured: the last accuracies, or errors, by split.
    """

    folder: Path
    state: MetaState
    step: int
    interrupted: bool
    measured: dict[str, Measured]


class Computed(NamedTuple):
    """What a run was computed by before it was stopped: the kind of device, and the execution."""

    device: str
    execution: str


class Trainer:
    """One training: the settings, the data, the algorithm, and the loop."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        observer: Observer | None,
        tensorboard: bool,
        processes: Processes,
        network: Network | None,
        before: Computed | None = None,
    ) -> None:
        if tensorboard:
            require_tensorboard()
        if processes.size > config.outer.meta_batch:
            raise ConfigError(
                f"meta_batch is {config.outer.meta_batch}; that is too few tasks for {processes.size} processes"
            )
        self.config, self.folder, self.processes = config, folder, processes
        self.observer = observer if observer is not None and processes.rank == 0 else Silent()
        self.device = choose_device(config.run.device)
        keep_freed_memory()
        self.logs = folder.path / "tensorboard" if tensorboard else None
        train, val = self._loaded()
        self.data = train.fingerprint
        self.store = train.to(self.device)
        shape, classes = self.store.image_shape, len(self.store) if isinstance(self.store, ImageStore) else 0
        self._build = partial(
            build_algorithm, config, shape, self.device, self._task_steps(), processes, network, classes,
            self.store.targets,
        )  # fmt: skip
        self.algorithm = self._computed_as(before) if before else self._build()
        self.sampler = self.algorithm.sampler(self.store)
        task, queries = config.task, config.evaluation.queries
        self.monitored: dict[str, Sampler] = {}
        if val is not train:  # they are one where every task is drawn anew
            self.monitored["train"] = sampler_of(self.store, task.way, task.shots, queries)
        if val is not None:
            self.monitored["val"] = sampler_of(val.to(self.device), task.way, task.shots, queries)

    def _computed_as(self, before: Computed) -> Algorithm:
        """The algorithm by the execution that the run had before, unless another was asked for or that one cannot be
        had here, which is told."""
        told = f"{self.folder.path} was computed by execution {before.execution} until now"
        if before.device != self.device.type:  # told elsewhere; and what is good on one is not on the other
            return self._build()
        try:
            algorithm = self._build(execution=before.execution)
        except ConfigError as error:
            if self.config.run.execution != "auto":
                raise
            algorithm = self._build()
            told += f", which cannot be had here ({error})"
        if algorithm.execution.name != before.execution:
            self.observer.warned(f"{told}; it goes on by {algorithm.execution.name}, whose sums are rounded otherwise")
        return algorithm

    def _loaded(self) -> tuple[Store, Store | None]:
        """What to train on, and what chooses the best checkpoint, if there is any of it."""
        task = self.config.task
        if task.regression:
            functions = load_functions(task)
            return functions.train, functions.val
        splits = load_splits(task)
        return self._guarded(splits), splits.val

    def _guarded(self, splits: Splits) -> ImageStore:
        """The training classes; says which of their images must not be there, and leaves them out if told to."""
        exclude, leaks = self.config.task.exclude_duplicates, find_leaks(splits)
        if message := leaks.message(excluded=exclude):
            self.observer.warned(message)
        return without_leaks(splits.train, leaks) if exclude else splits.train

    def environment(self) -> dict[str, Any]:
        """What env.json says of the place where this computes: command, versions, hardware, execution."""
        return environment(self.device) | {"execution": self.algorithm.execution.name}

    def beginning(self) -> Checkpoint:
        """The state before the first outer step: same seed, same state."""
        seed = self.config.run.seed
        return Checkpoint(
            self.config,
            self.algorithm.begin(seed),
            step=0,
            seconds=0.0,
            generator=torch.Generator(self.device).manual_seed(seed).get_state(),
            metrics_bytes=0,
            losses=(0.0, 0),
            best=-math.inf if self.config.task.regression else -1.0,
            data=self.data,
            device=self.device.type,
            execution=self.algorithm.execution.name,
            scale=self.sampler.scale,
        )

    def going_on(self, checkpoint: Checkpoint) -> Checkpoint:
        """The state to go on from, which the run folder held.

        Raises:
            RunError: it does not fit the run's settings, network or images.
        """
        path, folder = self.folder.path, self.folder
        if checkpoint.config.learning() != self.config.learning():
            raise RunError(f"{folder.config_file} is not what {path} was trained with; settings of a run cannot change")
        state, begun = checkpoint.state, self.algorithm.begin(self.config.run.seed)
        if not self.algorithm.fits(state.params):
            raise RunError(
                f"{folder.last}: its weights are not those of this network; it was trained with another, or is damaged"
            )
        if checkpoint.data != self.data:
            title = self.config.task.title
            what = "functions" if self.config.task.regression else "images"
            raise RunError(f"{path} was trained on other {what} than {title} holds now; it cannot go on")
        if _remembered(state) != _remembered(begun):
            raise RunError(f"{folder.last} is damaged: what its optimisers remember does not fit its weights")
        if shapes(state.averages) != shapes(begun.averages):
            raise RunError(f"{folder.last} is damaged: its averages do not fit its weights")
        # Where and how to compute may be new.
        return replace(
            checkpoint,
            config=self.config,
            state=state.mapped(lambda tensor: tensor.to(self.device)),
            generator=self._generator_from(checkpoint),
            device=self.device.type,
            execution=self.algorithm.execution.name,
        )

    def _generator_from(self, checkpoint: Checkpoint) -> torch.Tensor:
        """The state of the generator of tasks and mini-batches. A run from another kind of device, whose generators are
        other ones, gets a fresh one that the same seed and step always give.

        Raises:
            RunError: what the checkpoint holds is no generator's state.
        """
        kept, generator = checkpoint.generator, torch.Generator(self.device)
        if checkpoint.device != self.device.type:
            self.observer.warned(
                f"{self.folder.path} was trained on another kind of device than {self.device} until outer step "
                f"{checkpoint.step:,}: from here on it draws other tasks than it would have drawn there"
            )
            mixed = hashlib.sha256(f"{self.config.run.seed} {checkpoint.step}".encode()).digest()
            return generator.manual_seed(int.from_bytes(mixed[:4], "big")).get_state()
        try:
            generator.set_state(kept)
        except (RuntimeError, TypeError) as error:  # not its size, not its kind of numbers, or none it could be in
            raise RunError(f"{self.folder.last} is damaged: it holds no state of a generator") from error
        return kept

    def run(self, start: Checkpoint) -> Run:
        """Train from ``start`` to the end, or until told to stop."""
        with stop_on_signals() as stop, precision_of(self.device, self.config.run.precision), self._log(start) as log:
            session = TrainingSession(self, start, log)
            self.observer.started(self.folder.path, self.config, start.step, self.algorithm.execution)
            try:
                interrupted = self._until_done(session, stop)
            except LostProcessError as error:
                self.observer.failed()
                raise LostProcessError(f"{error}; go on with --resume {self.folder.path}") from error
            except BaseException:
                self.observer.failed()
                raise
            self.observer.finished(self.folder.path, session.step, interrupted)
        return Run(self.folder.path, session.state, session.step, interrupted, session.measured)

    def _log(self, start: Checkpoint) -> AbstractContextManager[MetricsLog | None]:
        """The metrics file, cut back to what ``start`` knows of; rank 0 alone has one."""
        if self.processes.rank > 0:
            return nullcontext()
        return MetricsLog(self.folder.metrics_file, start.metrics_bytes, self.logs, start.step + 1)

    def _until_done(self, session: TrainingSession, stop: Callable[[], bool]) -> bool:
        """The loop; True if it was told to stop before the end."""
        saved_at, before = time.monotonic(), session.seconds
        while not session.agree(stop()) and session.done() < 1:
            session.outer_step()
            if session.due():
                session.measure()
            self.observer.stepped(session.step, session.done(), session.seconds - before)
            if time.monotonic() - saved_at >= 60 * self.config.run.save_minutes:
                session.save()
                saved_at = time.monotonic()
        interrupted = session.done() < 1
        if not interrupted and session.unmeasured:
            session.measure()
        session.save()
        return interrupted

    def _task_steps(self) -> float:
        """About how many inner steps of one task this training will do."""
        outer, seconds = self.config.outer, SECONDS_PER_TASK_STEP[self.device.type]
        by_time = 60 * outer.max_minutes / seconds
        by_steps = outer.outer_steps * outer.meta_batch * self.config.inner.inner_steps
        return min(by_steps, by_time) if outer.max_minutes else by_steps


class TrainingSession:
    """What changes while one process trains: the state, the generator, the clock, the losses since the last line."""

    def __init__(self, trainer: Trainer, start: Checkpoint, log: MetricsLog | None) -> None:
        self._trainer, self._start, self._log = trainer, start, log
        self.state, self.step, self._best = start.state, start.step, start.best
        self.measured: dict[str, Measured] = {}
        self._generator = torch.Generator(trainer.device)
        try:
            self._generator.set_state(start.generator)
        except (RuntimeError, TypeError) as error:  # it came from the first process, which computes elsewhere
            raise RunError(
                f"{trainer.folder.path}: processes compute on different kinds of device, one of them on "
                f"{trainer.device}; name the same --device for all"
            ) from error
        self._outer_step = OuterStep(
            trainer.algorithm,
            trainer.sampler,
            trainer.config.outer,
            self._generator,
            record=trainer.device.type == "cuda" and not trainer.algorithm.execution.draws,
        )
        # Summed on the device: reading a number after every step would make the host wait for it.
        self._loss_sum = torch.tensor(start.losses[0], dtype=torch.float64, device=trainer.device)
        self.unmeasured = start.losses[1]  # outer steps since the last measurement
        self._step_size = 0.0
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
        """Whether any process was told to stop; also sets the common clock, by which annealing may go."""
        before = self.seconds
        stopped, self.seconds = self._trainer.processes.agree(stop, self.clock())
        # By the common clock, so that all processes measure at the same steps.
        took = self.seconds - before
        if self._measuring:
            self._measure_again = self.seconds + max(0.0, took - self._step_took) * (1 / MEASURING_SHARE - 1)
            self._measuring = False
        else:
            self._step_took = took
        return stopped

    def done(self) -> float:
        """The share of the training that is over, from 0 to 1: by steps, or by time where that is further."""
        outer = self._trainer.config.outer
        by_time = self.seconds / (60 * outer.max_minutes) if outer.max_minutes else 0.0
        return min(1.0, max(self.step / outer.outer_steps, by_time))

    def due(self) -> bool:
        """Whether to measure now: after so many outer steps or, in a training limited by time, so many times in all,
        fewer where that would take too much of it."""
        config = self._trainer.config
        by_time = config.outer.max_minutes > 0 and not config.run.monitor_every
        if by_time and self.seconds >= self._measure_again and self._shares_done() > self._shares:
            self._shares = self._shares_done()
            return True
        return self.step % config.monitor_every == 0

    def _shares_done(self) -> int:
        """How many of the equal shares of the training, one for each measurement, are over."""
        return int(MEASUREMENTS * self.done())

    def outer_step(self) -> None:
        """Draw a meta-batch, learn from it, move phi."""
        self._step_size = self._trainer.config.outer.step_size_at(self.done(), self.step)
        self.state, loss = self._outer_step(self.state, self._step_size)
        self._loss_sum += loss
        self.unmeasured += 1
        self.step += 1

    def measure(self) -> None:
        """Accuracy or error on training and validation classes, never on test ones: logged, shown, the best kept."""
        trainer, run = self._trainer, self._trainer.config.run
        loss = float(self._loss_sum) / max(self.unmeasured, 1)
        if not math.isfinite(loss):
            raise RunError(
                f"{trainer.folder.path}: training diverged before outer step {self.step} (the loss is {loss}); "
                f"start again with a smaller --inner-lr than {trainer.config.inner.inner_lr}"
            )
        self.measured = {
            split: measure(trainer.algorithm, self.state, sampler, run.monitor_episodes, MONITOR_SEED)
            for split, sampler in trainer.monitored.items()
        }
        self._loss_sum.zero_()
        self.unmeasured, self._measuring = 0, True
        if self._log is None:
            return
        self._log.write(_line(self.step, loss, self._step_size, self.clock(), self.measured))
        trainer.observer.measured(self.step, loss, self.measured)
        if "val" in self.measured:  # without validation classes nothing may choose a best checkpoint
            score = self.measured["val"].score(trainer.config.evaluation.transductive)
            if score > self._best:
                self._best = score
                save_checkpoint(self._checkpoint(self._log), trainer.folder.best)

    def save(self) -> None:
        """Keep everything needed to go on from here."""
        if self._log is not None:
            save_checkpoint(self._checkpoint(self._log), self._trainer.folder.last)

    def _checkpoint(self, log: MetricsLog) -> Checkpoint:
        """The state, and the metrics that belong to it, which are on disk when this returns."""
        return replace(
            self._start,
            state=self.state,
            step=self.step,
            seconds=self.clock(),
            generator=self._generator.get_state(),
            metrics_bytes=log.sync(),
            losses=(float(self._loss_sum), self.unmeasured),
            best=self._best,
        )


def _remembered(state: MetaState) -> list[dict[str, tuple[int, ...]]]:
    """Names and shapes of what the inner and the outer optimiser remember."""
    return [shapes(moments) for moments in (state.inner.v, state.outer.m, state.outer.v)]


def _line(
    step: int, loss: float, step_size: float, seconds: float, measured: dict[str, Measured]
) -> dict[str, float | int | str]:
    """One line of metrics.jsonl; accuracies from 0 to 1, mean squared errors, time in seconds."""
    line: dict[str, float | int | str] = {
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
