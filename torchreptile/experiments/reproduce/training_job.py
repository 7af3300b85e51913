"""One training of an experiment with its evaluations, as a job that runs in its own process and can be resumed."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass

import torch

from torchreptile.core.config import Config
from torchreptile.core.device import choose_device
from torchreptile.core.distributed.jobs import Send
from torchreptile.core.errors import RunError
from torchreptile.core.files import read_text
from torchreptile.core.json_text import json_text
from torchreptile.data.splits import Split
from torchreptile.experiments.reproduce.experiment import Arm, Measurement
from torchreptile.experiments.reproduce.result import TrainedArm, Wave, cells
from torchreptile.models.execution.choose import rounds_by_threads
from torchreptile.training.callbacks import Callback
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate, split_store
from torchreptile.training.evaluation.function_fits import fit_functions
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.in_subprocess import train_or_resume
from torchreptile.training.progress_bars import CountBar, ProgressBar, StandardError
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.setup import planned_execution
from torchreptile.training.weights import load_weights

REPORT_EVERY = 0.5  # seconds
WAVES = 2  # fitted waves stored for figures


@dataclass(frozen=True)
class TrainingJob:
    """A requested training and its evaluations.

    Attributes:
        arm: the arm, which lists the evaluations.
        config: settings of the training, including its seed.
        folder: the run folder.
        split, episodes: classes to evaluate on, and episodes per evaluation.
    """

    arm: Arm
    config: Config
    folder: RunFolder
    split: Split
    episodes: int

    @property
    def training(self) -> float:
        """Approximate cost of the training: images passed forward and backward."""
        outer = self.config.outer
        steps = self.config.inner.inner_steps if self.config.row.trains_by_steps else 1
        return float(outer.outer_steps * outer.meta_batch * steps * self.config.training_batch)

    @property
    def measuring(self) -> float:
        """Approximate cost of the evaluations in images, with a forward pass counted as a third of an image."""
        way, queries = self.config.task.way, self.config.evaluation.queries

        def images(measurement: Measurement) -> float:
            support = way * measurement.shots
            return measurement.eval_steps * (measurement.eval_batch or support) + way * queries * support / 3

        return float(sum(self.episodes * images(measurement) for measurement in self.arm.measurements))

    def require_same(self) -> None:
        """Refuse a run folder with other settings; how often the run is monitored does not matter.

        Raises:
            RunError: a setting differs; the message names it.
        """
        if self.folder.config_file.is_file():
            every = self.folder.config().run.monitor_every
            self.folder.require_same(self.config.replace(monitor_every=every))

    def rounds_by_threads(self) -> bool:
        """Return whether the number of threads decides how sums of this training are rounded."""
        device = choose_device(self.config.run.device)
        if device.type != "cpu":
            return False
        begun = load_checkpoint(self.folder.last) if self.folder.last.is_file() else None
        keeps = begun is not None and begun.device == "cpu"
        return rounds_by_threads(begun.execution if begun and keeps else planned_execution(self.config, device))

    def _threads_begun_with(self) -> int:
        """Return the threads that a training must be resumed with to be bit-exact; 0 for any."""
        if not self.folder.last.is_file() or not self.rounds_by_threads():
            return 0
        threads = load_checkpoint(self.folder.last).division.threads
        return threads if threads <= (os.cpu_count() or 1) else 0  # more than there are cores would take for ever

    def run_experiment(self, shown: bool, send: Send) -> str | None:
        """Train (or resume) and evaluate; called in the job's process.

        Args:
            shown: show progress on standard error, instead of sending it to the parent process.
            send: sends the share of the work that is done, or a warning, to the parent process.

        Returns:
            A :class:`TrainedArm` as JSON, or None if a signal stopped the training.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads_begun_with() or threads)
        try:
            return self._trained(shown, send)
        finally:
            torch.set_num_threads(threads)

    def _trained(self, shown: bool, send: Send) -> str | None:
        """Train and evaluate with the threads that are set."""
        console, folder, config = StandardError(quiet=not shown), self.folder, self.config
        work = self.training + self.measuring
        over = folder.steps_done() >= config.outer.outer_steps
        console.print(f"{self.arm.label}, seed {config.run.seed}", highlight=False, soft_wrap=True, markup=False)
        callback = ProgressBar(console) if shown else _ProgressReports(send, self.training / work)
        if not over and train_or_resume(config, folder, [callback]).interrupted:
            return None
        checkpoint, measured = load_checkpoint(folder.last), []
        for number, measurement in enumerate(self.arm.measurements):
            evaluation = self._earlier_evaluation(measurement, checkpoint.step)
            if evaluation is None:
                with CountBar(console, "evaluating", "episodes") as bar:

                    def progress(done: int, total: int, number: int = number, bar: CountBar = bar) -> None:
                        bar.update(done, total)
                        share = (number + done / total) / len(self.arm.measurements)
                        send((self.training + share * self.measuring) / work)

                    evaluation = evaluate(
                        folder.path,
                        self.split,
                        **dataclasses.asdict(measurement),
                        episodes=self.episodes,
                        seed=config.run.seed,
                        data_root=config.task.data_root or None,
                        device=config.run.device,
                        execution=folder.config().run.execution,  # the training's own
                        on_progress=progress,
                    )
            measured += cells(evaluation, "last")
        by_step, waves = self._fitted() if config.task.regression else ([], [])
        trained = TrainedArm(
            self.arm.name, self.arm.label, folder.config(), checkpoint.step, checkpoint.seconds,
            folder.environment(), measured, folder.metrics(), by_step, waves,
        )  # fmt: skip
        return json_text(trained.content())

    def _earlier_evaluation(self, measurement: Measurement, step: int) -> Evaluation | None:
        """Return an identical evaluation that an interrupted call left in the run folder, if there is one."""
        asked = self.folder.config().replace(**dataclasses.asdict(measurement))
        for file in self.folder.path.glob(f"eval-*-{self.split}-*.json"):
            try:
                found = Evaluation.from_json(read_text(file))
            except (OSError, RunError, ValueError):
                continue  # it will be evaluated again and replaced
            conditions = (found.split, found.step, found.seed, found.config.evaluation.eval_episodes)
            same = found.is_of(asked) and conditions == (self.split, step, self.config.run.seed, self.episodes)
            if same and not found.result.diverged:
                return found
        return None

    def _fitted(self) -> tuple[list[tuple[float, float]], list[Wave]]:
        """Return the error by inner step over ``episodes`` functions, and a few fitted functions for figures."""
        weights = load_weights(self.folder.path)
        store = split_store(self.config, self.split, weights.scale)
        fitted = fit_functions(weights, store, self.episodes, seed=self.config.run.seed)
        tasks, shown = fitted.episodes, range(min(WAVES, self.episodes))
        drawn = (tasks.query_x, tasks.query_y, fitted.before, fitted.after, tasks.support_x, tasks.support_y)
        waves = [Wave(*(values[task, :, 0].tolist() for values in drawn)) for task in shown]
        return [(error.mean, error.ci95) for error in fitted.by_step], waves


class _ProgressReports(Callback):
    """A callback that sends a training's progress and warnings to the parent process."""

    def __init__(self, send: Send, share: float) -> None:
        """Take the function that sends, and the training's share of the job's work."""
        self._send, self._share, self._last = send, share, 0.0

    def on_warning(self, message: str) -> None:
        """Send a warning."""
        self._send(message)

    def on_step(self, step: int, done: float, seconds: float) -> None:
        """Send the share of the work that is done, at most every half second."""
        if (now := time.monotonic()) - self._last >= REPORT_EVERY:
            self._last = now
            self._send(self._share * done)
