"""Meta-training: sample, learn, move the initialisation, measure, save."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Protocol

import torch

from torchreptile.algorithms import Algorithm, MetaState, build_algorithm
from torchreptile.checkpoint import Checkpoint, RunFolder, load_checkpoint, save_checkpoint
from torchreptile.config import Config
from torchreptile.data import load_splits
from torchreptile.device import choose_device
from torchreptile.environment import environment
from torchreptile.episodes import EpisodeSampler
from torchreptile.errors import RunError
from torchreptile.evaluation import MODES, Result, measure
from torchreptile.inner import Params, shapes
from torchreptile.metrics import MetricsLog, require_tensorboard
from torchreptile.models import for_images

SECONDS_PER_TASK_STEP = 0.003  # on two CPU cores; a guess, for choosing the execution of a run limited by time
MONITOR_SEED = 1_000_003  # apart from training's seeds; the same episodes at every measurement


class Observer(Protocol):
    """Whoever wants to follow a training: see :class:`torchreptile.progress.LiveLine`."""

    def started(self, folder: Path, config: Config, step: int) -> None:
        """Training begins, at outer step ``step``."""

    def stepped(self, step: int, done: float, seconds: float) -> None:
        """An outer step is over; ``done`` is the share of the training, from 0 to 1."""

    def measured(self, step: int, loss: float, measured: dict[str, Result]) -> None:
        """Accuracy was measured on the named classes."""

    def finished(self, folder: Path, step: int, interrupted: bool) -> None:
        """Training ended, or was told to stop."""

    def failed(self) -> None:
        """Training ends with an exception."""


class Silent:
    """An observer that shows nothing."""

    def started(self, folder: Path, config: Config, step: int) -> None:
        """Nothing."""

    def stepped(self, step: int, done: float, seconds: float) -> None:
        """Nothing."""

    def measured(self, step: int, loss: float, measured: dict[str, Result]) -> None:
        """Nothing."""

    def finished(self, folder: Path, step: int, interrupted: bool) -> None:
        """Nothing."""

    def failed(self) -> None:
        """Nothing."""


@dataclass(frozen=True, eq=False)
class Run:
    """A training that has ended, or was told to stop.

    Attributes:
        folder: where its files are.
        state: what was learned.
        step: outer steps done.
        interrupted: True if a signal ended it; it can be resumed.
        measured: the last accuracies, by split.
    """

    folder: Path
    state: MetaState
    step: int
    interrupted: bool
    measured: dict[str, Result]


def initial_params(config: Config, image_shape: tuple[int, int, int]) -> Params:
    """Freshly drawn weights for the network that fits the images: same seed, same weights."""
    module = for_images(image_shape, config.task.way)
    module.initialise(torch.Generator().manual_seed(config.run.seed))
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def outer_update(params: Params, gradient: Params, step_size: float) -> Params:
    """phi <- phi - step size * meta-gradient."""
    names = list(params)
    moved = torch._foreach_add([params[name] for name in names], [gradient[name] for name in names], alpha=-step_size)
    return dict(zip(names, moved, strict=True))


def train(config: Config, out: Path | str, observer: Observer | None = None, tensorboard: bool = False) -> Run:
    """Meta-train from the beginning.

    Args:
        config: all settings.
        out: a folder that does not exist yet, or is empty.
        observer: is told how it goes.
        tensorboard: also log for TensorBoard, into the run folder.

    Raises:
        ConfigError, DataError, RunError: settings, data or folder cannot be used.
    """
    folder = RunFolder(Path(out))
    folder.require_free()  # before the data are loaded, and before anything is written
    trainer = _Trainer(config, folder, observer or Silent(), tensorboard)
    with folder.locked(make=True):
        folder.create(config, environment())
        start = trainer.beginning()
        save_checkpoint(start, folder.last)
        return trainer.run(start)


def resume(out: Path | str, observer: Observer | None = None, tensorboard: bool = False) -> Run:
    """Go on with a run that was stopped, exactly as if it had not been.

    Raises:
        RunError: no such run, or it was trained on other images.
    """
    folder = RunFolder(Path(out))
    config = folder.config()
    with folder.locked():
        trainer = _Trainer(config, folder, observer or Silent(), tensorboard)
        if not folder.last.is_file():  # killed before its first checkpoint
            return trainer.run(trainer.beginning())
        checkpoint = load_checkpoint(folder.last, trainer.device)
        if checkpoint.config != config:
            raise RunError(f"{folder.config_file} is not what {out} was trained with; settings of a run cannot change")
        if shapes(checkpoint.state.params) != trainer.shapes:
            raise RunError(f"{folder.last}: its weights are not those of this network; the file is damaged")
        if checkpoint.data != trainer.data:
            raise RunError(f"{out} was trained on other images than {config.task.dataset} holds now; it cannot go on")
        return trainer.run(checkpoint)


class _Trainer:
    """One training: the settings, the data, the algorithm, and the loop."""

    def __init__(self, config: Config, folder: RunFolder, observer: Observer, tensorboard: bool) -> None:
        if tensorboard:
            require_tensorboard()
        self.config, self.folder, self.observer = config, folder, observer
        self.device = choose_device(config.run.device)
        self.logs = folder.path / "tensorboard" if tensorboard else None
        splits = load_splits(config.task.dataset, config.task.split_scheme, config.task.split_seed)
        self.data = splits.train.fingerprint
        train_store = splits.train.to(self.device)
        self.image_shape = train_store.image_shape
        module = for_images(self.image_shape, config.task.way).to(self.device)
        self.shapes = shapes(dict(module.named_parameters()))
        self.algorithm: Algorithm = build_algorithm(module, config, self.device, self._task_steps())
        self.sampler = self.algorithm.sampler(train_store)
        task, queries = config.task, config.evaluation.queries
        self.monitored = {"train": EpisodeSampler(train_store, task.way, task.shots, queries)}
        if splits.val is not None:
            self.monitored["val"] = EpisodeSampler(splits.val.to(self.device), task.way, task.shots, queries)

    def beginning(self) -> Checkpoint:
        """The state before the first outer step: same seed, same state."""
        params = {name: p.to(self.device) for name, p in initial_params(self.config, self.image_shape).items()}
        return Checkpoint(
            self.config,
            self.algorithm.initial_state(params),
            step=0,
            seconds=0.0,
            generator=torch.Generator(self.device).manual_seed(self.config.run.seed).get_state(),
            metrics_bytes=0,
            losses=(0.0, 0),
            best=-1.0,
            data=self.data,
        )

    def run(self, start: Checkpoint) -> Run:
        """Train from ``start`` to the end, or until told to stop."""
        log_file = MetricsLog(self.folder.metrics_file, start.metrics_bytes, self.logs, start.step + 1)
        with log_file as log, _stop_on_signals() as stop:
            sitting = _Sitting(self, start, log)
            self.observer.started(self.folder.path, self.config, start.step)
            try:
                interrupted = self._until_done(sitting, stop)
            except BaseException:
                self.observer.failed()
                raise
            self.observer.finished(self.folder.path, sitting.step, interrupted)
        return Run(self.folder.path, sitting.state, sitting.step, interrupted, sitting.measured)

    def _until_done(self, sitting: _Sitting, stop: Callable[[], bool]) -> bool:
        """The loop; True if it was told to stop before the end."""
        saved_at, before = time.monotonic(), sitting.seconds()
        while not stop() and sitting.done() < 1:
            sitting.outer_step()
            if sitting.step % self.config.monitor_every == 0:
                sitting.measure()
            self.observer.stepped(sitting.step, sitting.done(), sitting.seconds() - before)
            if time.monotonic() - saved_at >= 60 * self.config.run.save_minutes:
                save_checkpoint(sitting.checkpoint(), self.folder.last)
                saved_at = time.monotonic()
        interrupted = sitting.done() < 1
        if not interrupted and sitting.unmeasured:
            sitting.measure()
        save_checkpoint(sitting.checkpoint(), self.folder.last)
        return interrupted

    def _task_steps(self) -> float:
        """About how many inner steps of one task this training will do."""
        outer, by_time = self.config.outer, 60 * self.config.outer.max_minutes / SECONDS_PER_TASK_STEP
        by_steps = outer.outer_steps * outer.meta_batch * self.config.inner.inner_steps
        return min(by_steps, by_time) if outer.max_minutes else by_steps


class _Sitting:
    """What changes while one process trains: the state, the generator, the clock, the losses since the last line."""

    def __init__(self, trainer: _Trainer, start: Checkpoint, log: MetricsLog) -> None:
        self._trainer, self._start, self._log = trainer, start, log
        self.state, self.step, self._best = start.state, start.step, start.best
        self.measured: dict[str, Result] = {}
        self._generator = torch.Generator(trainer.device)
        try:
            self._generator.set_state(start.generator)
        except (RuntimeError, TypeError) as error:  # their sizes differ
            raise RunError(
                f"{trainer.folder.path} was trained on another kind of device than {trainer.device}; resume it there"
            ) from error
        # Summed on the device: reading a number after every step would make the host wait for it.
        self._loss_sum = torch.tensor(start.losses[0], dtype=torch.float64, device=trainer.device)
        self.unmeasured = start.losses[1]  # outer steps since the last measurement
        self._step_size = 0.0
        self._clock = time.monotonic()

    def seconds(self) -> float:
        """Of training so far, over all sittings."""
        return self._start.seconds + time.monotonic() - self._clock

    def done(self) -> float:
        """The share of the training that is over, from 0 to 1: by steps, or by time where that is further."""
        outer = self._trainer.config.outer
        by_time = self.seconds() / (60 * outer.max_minutes) if outer.max_minutes else 0.0
        return min(1.0, max(self.step / outer.outer_steps, by_time))

    def outer_step(self) -> None:
        """Draw a meta-batch, learn from it, move phi."""
        trainer, outer = self._trainer, self._trainer.config.outer
        self._step_size = outer.step_size_at(self.done())
        episodes = trainer.sampler.sample(outer.meta_batch, self._generator)
        learned = trainer.algorithm.meta_gradient(self.state, episodes, self._generator)
        self.state = MetaState(outer_update(self.state.params, learned.gradient, self._step_size), learned.inner)
        self._loss_sum += learned.loss
        self.unmeasured += 1
        self.step += 1

    def measure(self) -> None:
        """Accuracy on training and validation classes, never on test classes: logged, shown, the best one kept."""
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
        self.unmeasured = 0
        self._log.write(_line(self.step, loss, self._step_size, self.seconds(), self.measured))
        trainer.observer.measured(self.step, loss, self.measured)
        if "val" in self.measured:  # without validation classes nothing may choose a best checkpoint
            accuracy = self.measured["val"].selected(trainer.config.evaluation.transductive).mean
            if accuracy > self._best:
                self._best = accuracy
                save_checkpoint(self.checkpoint(), trainer.folder.best)

    def checkpoint(self) -> Checkpoint:
        """Everything needed to go on from here; the metrics that belong to it are on disk when it returns."""
        return replace(
            self._start,
            state=self.state,
            step=self.step,
            seconds=self.seconds(),
            generator=self._generator.get_state(),
            metrics_bytes=self._log.sync(),
            losses=(float(self._loss_sum), self.unmeasured),
            best=self._best,
        )


def _line(
    step: int, loss: float, step_size: float, seconds: float, measured: dict[str, Result]
) -> dict[str, float | int | str]:
    """One line of metrics.jsonl; accuracies from 0 to 1, time in seconds."""
    line: dict[str, float | int | str] = {
        "step": step,
        "loss": loss,
        "outer_step_size": step_size,
        "seconds": round(seconds, 3),
    }
    for split, result in measured.items():
        for mode in MODES:
            accuracy = getattr(result, mode)
            line[f"{split}_{mode}"] = accuracy.mean
            line[f"{split}_{mode}_ci95"] = accuracy.ci95
    return line


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a wish to stop after the current outer step; a second one stops at once."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread, where Python takes no signal handlers
        before = {}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
