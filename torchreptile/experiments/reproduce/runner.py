"""Carries an experiment out: trains and measures what is missing, and keeps everything from one call to the next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from torchreptile.core.config.validation import at_least
from torchreptile.core.device import choose_device
from torchreptile.core.distributed.jobs import Job, JobsError, do_jobs
from torchreptile.core.environment import environment
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.core.files import write_text
from torchreptile.data.loading import require_split
from torchreptile.data.splits import Split
from torchreptile.experiments.reproduce.experiment import Experiment
from torchreptile.experiments.reproduce.result import (
    Cell,
    Conditions,
    Reproduced,
    TrainedArm,
    read_reproduced,
    run_name,
)
from torchreptile.experiments.reproduce.training_job import TrainingJob
from torchreptile.training.evaluation.results import ERRORS, Accuracy, SquaredError
from torchreptile.training.progress_bars import ManyBar
from torchreptile.training.run_folder import LOCK, RunFolder

RESULT = "result.json"


class TrainingsError(RunError):
    """Trainings failed; what came of the others is kept.

    Attributes:
        others: the experiment without those that failed.
    """

    def __init__(self, message: str, others: Reproduced) -> None:
        super().__init__(message)
        self.others = others


def run_experiment(
    experiment: Experiment,
    out: Path | str,
    *,
    share: float = 1.0,
    seeds: int = 0,
    split: Split = "test",
    episodes: int = 0,
    at_once: int = 0,
    device: str = "auto",
    execution: str = "auto",
    data_root: str = "",
    quiet: bool = False,
) -> Reproduced | None:
    """Train and measure what is missing.

    Stopped or killed, the same call goes on where it was: trainings by their checkpoints, measurements that were over
    by what they left. Called with another ``split`` or other ``episodes`` it measures the same trainings in addition.

    Args:
        experiment: which.
        out: folder for the run folders and result.json.
        share: of the published outer steps; step sizes go through their whole schedule all the same.
        seeds: trainings of each arm, with the seeds 0, 1, ...; 0 for as many as the experiment says.
        split: which classes to measure on.
        episodes: of each measurement; 0 for as many as the experiment says.
        at_once: trainings side by side, each with its part of the threads; 0 for one per thread on a CPU, and one on a
            GPU.
        device, execution, data_root: as for a training; no part of what was published. Execution ``auto`` leaves a
            training the one that it began with.
        quiet: show nothing on standard error.

    Returns:
        All of it; None if a signal ended it before.

    Raises:
        ConfigError: the arguments cannot work.
        DataError: a data set is not there.
        RunError: ``out`` holds something else or is in use.
        TrainingsError: trainings failed, after all others were done or stopped.
    """
    at_least(0, seeds=seeds, at_once=at_once)
    if episodes < 0 or episodes == 1:
        raise ConfigError(f"episodes is {episodes}; it must be at least 2, or 0 for as many as usual")
    asked = experiment.shortened(share).changed(
        lambda config: config.computed_as(config.replace(device=device, execution=execution, data_root=data_root))
    )
    for arm in {arm.config.task.dataset: arm for arm in asked.arms}.values():
        if arm.config.task.drawn and split != "test":
            raise ConfigError(f"split is {split}, but {experiment.name} has no classes to divide; leave it out")
        require_split(arm.config.task, split)  # now, not after hours of training
    out = Path(out)
    pieces = [
        TrainingJob(
            arm,
            arm.config.replace(seed=seed),
            RunFolder(out / run_name(arm.name, seed)),
            split,
            episodes or experiment.episodes,
        )
        for arm in asked.arms
        for seed in range(seeds or experiment.seeds)
    ]
    _require_ours(out, {piece.folder.path.name for piece in pieces})
    threads = torch.get_num_threads()
    # Not fewer where fewer trainings are left: the number of threads decides how sums are rounded.
    at_once = min(at_once or (threads if choose_device(device).type == "cpu" else 1), len(pieces))
    with RunFolder(out).locked(make=True):
        kept = _ResultFile(out, experiment, share)
        for piece in pieces:
            piece.require_same()
        missing = [piece for piece in pieces if not kept.has(piece)]
        if not missing:
            told = f"all of it was measured before; without {out / RESULT} it would be measured again"
            Console(stderr=True, quiet=quiet).print(told, highlight=False, soft_wrap=True, markup=False)
        try:
            whole = _do(missing, kept, at_once, max(1, threads // at_once), quiet)
        except JobsError as failed:
            raise TrainingsError(str(failed), kept.reproduced()) from failed
        return kept.reproduced() if whole else None


def _require_ours(out: Path, names: set[str]) -> None:
    """Refuse a folder with something in it and nothing of the experiment: a run folder, or a user's own.

    Raises:
        RunError: it is one.
    """
    there = {path.name for path in out.iterdir()} - {LOCK} if out.is_dir() else set()
    if there and not there & {RESULT, *names}:
        raise RunError(f"{out} holds something else ({sorted(there)[0]}, ...); name another folder with --out")


def _do(pieces: Sequence[TrainingJob], kept: _ResultFile, at_once: int, threads: int, quiet: bool) -> bool:
    """Carry the pieces out, keeping each as soon as it is over; False if a signal stopped them."""
    alone = at_once == 1 and not quiet  # then it shows by itself how it goes

    def heard(number: int, said: float | str) -> None:
        if isinstance(said, str):
            bar.warned(said)
        else:
            bar.told(number, said)

    def done(number: int, answer: str) -> None:
        trained = TrainedArm.of_content(json.loads(answer))
        kept.add(trained)
        bar.finished(number, f"{trained.name}: {_main_cell(trained)}")

    works = [piece.training + piece.measuring for piece in pieces]
    with ManyBar(Console(stderr=True, quiet=quiet), works, shown=not alone) as bar:
        jobs = [Job(str(piece.folder.path), partial(piece.run_experiment, alone)) for piece in pieces]
        return do_jobs(jobs, at_once, threads, heard, done)


class _ResultFile:
    """What an experiment came to so far, in its folder."""

    def __init__(self, out: Path, experiment: Experiment, share: float) -> None:
        """Read what earlier calls left.

        Raises:
            RunError: the file is damaged, of another experiment, or of other settings.
        """
        self._out, self._experiment, self._share = out, experiment, share
        self._commands: list[str] = []
        self._note = ""
        self._trained: dict[tuple[str, int], TrainedArm] = {}
        if not (out / RESULT).is_file():
            return
        before = read_reproduced(out / RESULT)
        if (before.name, before.share) != (experiment.name, share):
            raise RunError(f"{out} holds {before.name} with --budget {before.share:g}; name another folder with --out")
        if departure := before.departure(experiment):
            raise RunError(f"{out / RESULT} has other settings ({departure}); name another folder with --out")
        self._commands, self._note = before.commands, before.note
        self._trained = {(trained.arm, trained.seed): trained for trained in before.trainings}

    def has(self, piece: TrainingJob) -> bool:
        """Whether everything that is asked of it is known."""
        trained = self._trained.get((piece.arm.name, piece.config.run.seed))
        if trained is None:
            return False
        known = {cell.conditions for cell in trained.cells}
        return all(Conditions(piece.split, piece.episodes, how) in known for how in piece.arm.measurements)

    def add(self, trained: TrainedArm) -> None:
        """Keep a training; what was measured otherwise of the same weights stays."""
        before = self._trained.get((trained.arm, trained.seed))
        if before is not None and (before.outer_steps, before.seconds) == (trained.outer_steps, trained.seconds):
            now = {cell.conditions for cell in trained.cells}
            others = [cell for cell in before.cells if cell.conditions not in now]
            if _most_episodes(others) > _most_episodes(trained.cells):
                trained = replace(trained, by_step=before.by_step, waves=before.waves)
            trained = replace(trained, cells=[*others, *trained.cells])
        self._trained[trained.arm, trained.seed] = trained
        self._commands = list(dict.fromkeys([*self._commands, str(environment()["command"])]))
        write_text(self._out / RESULT, self.reproduced().to_json())

    def reproduced(self) -> Reproduced:
        """All of it."""
        order = {arm.name: place for place, arm in enumerate(self._experiment.arms)}
        trainings = sorted(self._trained.values(), key=lambda trained: (order[trained.arm], trained.seed))
        return Reproduced(self._experiment.name, self._share, trainings, self._commands, self._note)


def _most_episodes(cells: Sequence[Cell]) -> int:
    return max((cell.episodes for cell in cells), default=0)


def _main_cell(trained: TrainedArm) -> str:
    """For the line that says it is over: the last of what was measured without help."""
    cell = next(cell for cell in reversed(trained.cells) if cell.measure in ("inductive", "mse"))
    if cell.measure in ERRORS:
        return f"mean squared error {SquaredError(cell.mean, cell.ci95, cell.episodes)}"
    return f"{cell.shots}-shot {Accuracy(cell.mean, cell.ci95, cell.episodes)} {cell.measure.replace('_', '-')}"
