"""One training of an experiment with its measurements: what its process does, and what it takes up from before."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass

from rich.console import Console

from torchreptile.core.config import Config
from torchreptile.core.distributed.jobs import Tell
from torchreptile.core.errors import RunError
from torchreptile.data.splits import Split
from torchreptile.experiments.reproduce.experiment import Arm, Measurement
from torchreptile.experiments.reproduce.result import TrainedArm, Wave, cells
from torchreptile.training.callbacks import Silent
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate, split_store
from torchreptile.training.evaluation.function_fits import fit_functions
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.in_subprocess import train_or_go_on
from torchreptile.training.progress_bars import EpisodeBar, LiveLine
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.weights import load_weights

TELL_EVERY = 0.5  # seconds
WAVES = 2  # that are kept to be drawn


@dataclass(frozen=True)
class TrainingJob:
    """A training that is wanted, and what of it.

    Attributes:
        arm: which; it has the measurements.
        config: the settings, with the seed.
        folder: of the run.
        split, episodes: what to measure on, and on how many.
    """

    arm: Arm
    config: Config
    folder: RunFolder
    split: Split
    episodes: int

    @property
    def training(self) -> float:
        """About how much there is to train: images seen both ways."""
        outer = self.config.outer
        steps = self.config.inner.inner_steps if self.config.method.takes_inner_steps else 1
        return float(outer.outer_steps * outer.meta_batch * steps * self.config.training_batch)

    @property
    def measuring(self) -> float:
        """The same of the measurements: the steps on a support set, and queries with it in one direction alone."""
        way, queries = self.config.task.way, self.config.evaluation.queries

        def images(measurement: Measurement) -> float:
            support = way * measurement.shots
            return measurement.eval_steps * (measurement.eval_batch or support) + way * queries * support / 3

        return float(sum(self.episodes * images(measurement) for measurement in self.arm.measurements))

    def require_same(self) -> None:
        """Refuse a run in its folder that learned, or learns, something else. It may look on the way as often as it
        likes: the last checkpoint is what is measured.

        Raises:
            RunError: naming a setting that differs.
        """
        if self.folder.config_file.is_file():
            often = self.folder.config().run.monitor_every
            self.folder.require_same(self.config.replace(monitor_every=often))

    def run_experiment(self, shown: bool, tell: Tell) -> str | None:
        """What its process does: train, measure, and answer with a :class:`TrainedArm` as JSON; None if stopped."""
        console, folder, config = Console(stderr=True, quiet=not shown), self.folder, self.config
        work = self.training + self.measuring
        over = folder.steps_done() >= config.outer.outer_steps
        console.print(f"{self.arm.label}, seed {config.run.seed}", highlight=False, soft_wrap=True, markup=False)
        observer = LiveLine(console, hints=False) if shown else _Telling(tell, self.training / work)
        if not over and train_or_go_on(config, folder, observer).interrupted:
            return None
        checkpoint, measured = load_checkpoint(folder.last), []
        for number, measurement in enumerate(self.arm.measurements):
            evaluation = self._measured_before(measurement, checkpoint.step)
            if evaluation is None:
                with EpisodeBar(console) as bar:

                    def progress(done: int, total: int, number: int = number, bar: EpisodeBar = bar) -> None:
                        bar.update(done, total)
                        share = (number + done / total) / len(self.arm.measurements)
                        tell((self.training + share * self.measuring) / work)

                    evaluation = evaluate(
                        folder.path,
                        self.split,
                        **dataclasses.asdict(measurement),
                        episodes=self.episodes,
                        seed=config.run.seed,
                        data_root=config.task.data_root or None,
                        device=config.run.device,
                        execution=config.run.execution,
                        on_progress=progress,
                    )
            measured += cells(evaluation, "last")
        by_step, waves = self._fitted() if config.task.regression else ([], [])
        trained = TrainedArm(
            self.arm.name, self.arm.label, folder.config(), checkpoint.step, checkpoint.seconds,
            folder.environment(), measured, folder.metrics(), by_step, waves,
        )  # fmt: skip
        return json.dumps(trained.content())

    def _measured_before(self, measurement: Measurement, step: int) -> Evaluation | None:
        """The same measurement of the same weights, which an earlier call did not come to use."""
        asked = self.folder.config().replace(**dataclasses.asdict(measurement))
        for file in self.folder.path.glob(f"eval-*-{self.split}-*.json"):
            try:
                found = Evaluation.from_json(file.read_text(encoding="utf-8"))
            except (OSError, RunError, ValueError):
                continue  # measured again, and replaced
            its_own = (found.split, found.step, found.seed, found.config.evaluation.eval_episodes)
            if found.is_of(asked) and its_own == (self.split, step, self.config.run.seed, self.episodes):
                return found
        return None

    def _fitted(self) -> tuple[list[tuple[float, float]], list[Wave]]:
        """The error by inner step over as many functions as there are episodes, and some of them to be drawn."""
        learned = load_weights(self.folder.path)
        store = split_store(self.config, self.split, learned.scale)
        fitted = fit_functions(learned, store, self.episodes, seed=self.config.run.seed)
        tasks, shown = fitted.episodes, range(min(WAVES, self.episodes))
        drawn = (tasks.query_x, tasks.query_y, fitted.before, fitted.after, tasks.support_x, tasks.support_y)
        waves = [Wave(*(values[task, :, 0].tolist() for values in drawn)) for task in shown]
        return [(error.mean, error.ci95) for error in fitted.by_step], waves


class _Telling(Silent):
    """Tells the parent how a training goes, now and then, and what must be known about its data."""

    def __init__(self, tell: Tell, part: float) -> None:
        """``part``: what share of all there is to do the training is."""
        self._tell, self._part, self._told = tell, part, 0.0

    def warned(self, message: str) -> None:
        """Pass it on."""
        self._tell(message)

    def stepped(self, step: int, done: float, seconds: float) -> None:
        """Say how much is done."""
        if (now := time.monotonic()) - self._told >= TELL_EVERY:
            self._told = now
            self._tell(self._part * done)
