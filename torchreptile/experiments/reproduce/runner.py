"""Running an experiment: train and evaluate what is missing, and store results so that later calls can reuse them."""

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
from torchreptile.training.evaluation.labels import ERRORS
from torchreptile.training.evaluation.results import Accuracy, SquaredError
from torchreptile.training.progress_bars import ManyBar
from torchreptile.training.run_folder import LOCK, RunFolder

RESULT = "result.json"


class TrainingsError(RunError):
    """Some trainings of an experiment failed; the results of the others are stored.

    Attributes:
        others: the experiment without the failed trainings.
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
    """Train and evaluate what is missing of an experiment.

    An interrupted call is resumed by repeating it: trainings continue from their checkpoints, and finished evaluations
    are reused. A call with another ``split`` or number of ``episodes`` evaluates the same trainings again and adds
    the results.

    Args:
        experiment: the experiment.
        out: folder for the run folders and result.json.
        share: share of the published outer steps; step sizes still follow their full schedule.
        seeds: trainings per arm, with seeds 0, 1, ...; 0 for the experiment's default.
        split: classes to evaluate on.
        episodes: episodes per evaluation; 0 for the experiment's default.
        at_once: trainings that run in parallel, each with its share of the threads; 0 for one per thread on a CPU and
            one on a GPU.
        device, execution, data_root: as for a training. Execution ``auto`` leaves a resumed training the execution it
            began with.
        quiet: show nothing on standard error.

    Returns:
        The results, or None if a signal interrupted the call.

    Raises:
        ConfigError: the arguments are invalid.
        DataError: a data set is missing.
        RunError: ``out`` holds something else or is in use.
        TrainingsError: trainings failed; raised when all others have finished or stopped.

    Example (hours of training)::

        from torchreptile.experiments.reproduce import experiment

        results = run_experiment(experiment("omniglot-5way"), "runs/omniglot-5way")
    """
    at_least(0, seeds=seeds, at_once=at_once)
    if episodes < 0 or episodes == 1:
        raise ConfigError(f"episodes is {episodes}; it must be at least 2, or 0 for the default")
    asked = experiment.shortened(share).changed(
        lambda config: config.computed_as(config.replace(device=device, execution=execution, data_root=data_root))
    )
    for arm in {arm.config.task.dataset: arm for arm in asked.arms}.values():
        if arm.config.task.drawn and split != "test":
            raise ConfigError(f"split is {split}, but {experiment.name} has no classes to split; leave it out")
        require_split(arm.config.task, split)  # now, not after hours of training
    out = Path(out)
    jobs = [
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
    _require_ours(out, {job.folder.path.name for job in jobs})
    threads = torch.get_num_threads()
    # Independent of how many trainings are left: the number of threads decides how sums are rounded.
    at_once = min(at_once or (threads if choose_device(device).type == "cpu" else 1), len(jobs))
    with RunFolder(out).locked(make=True):
        results = _ResultFile(out, experiment, share)
        for job in jobs:
            job.require_same()
        missing = [job for job in jobs if not results.has(job)]
        if not missing:
            note = f"everything was measured before; delete {out / RESULT} to measure again"
            Console(stderr=True, quiet=quiet).print(note, highlight=False, soft_wrap=True, markup=False)
        try:
            completed = _run_jobs(missing, results, at_once, max(1, threads // at_once), quiet)
        except JobsError as failed:
            raise TrainingsError(str(failed), results.reproduced()) from failed
        return results.reproduced() if completed else None


def _require_ours(out: Path, names: set[str]) -> None:
    """Refuse a non-empty folder that holds nothing of the experiment.

    Raises:
        RunError: the folder holds something else.
    """
    found = {path.name for path in out.iterdir()} - {LOCK} if out.is_dir() else set()
    if found and not found & {RESULT, *names}:
        raise RunError(f"{out} holds something else ({sorted(found)[0]}, ...); name another folder with --out")


def _run_jobs(jobs: Sequence[TrainingJob], results: _ResultFile, at_once: int, threads: int, quiet: bool) -> bool:
    """Train and evaluate, storing each result as soon as it is there; return False if a signal stopped the jobs."""
    alone = at_once == 1 and not quiet  # a job that runs alone shows its own progress

    def on_message(number: int, message: float | str) -> None:
        if isinstance(message, str):
            bar.warn(message)
        else:
            bar.update(number, message)

    def on_done(number: int, answer: str) -> None:
        trained = TrainedArm.of_content(json.loads(answer))
        results.add(trained)
        bar.finish(number, f"{trained.name}: {_main_cell(trained)}")

    works = [job.training + job.measuring for job in jobs]
    with ManyBar(Console(stderr=True, quiet=quiet), works, shown=not alone) as bar:
        processes = [Job(str(job.folder.path), partial(job.run_experiment, alone)) for job in jobs]
        return do_jobs(processes, at_once, threads, on_message, on_done)


class _ResultFile:
    """The result.json of an experiment, extended as trainings finish."""

    def __init__(self, out: Path, experiment: Experiment, share: float) -> None:
        """Read the results of earlier calls.

        Raises:
            RunError: the file is damaged or belongs to another experiment or other settings.
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

    def has(self, job: TrainingJob) -> bool:
        """Return whether all evaluations of a job are stored."""
        trained = self._trained.get((job.arm.name, job.config.run.seed))
        if trained is None:
            return False
        known = {cell.conditions for cell in trained.cells}
        return all(Conditions(job.split, job.episodes, measurement) in known for measurement in job.arm.measurements)

    def add(self, trained: TrainedArm) -> None:
        """Store a training, together with earlier evaluations of the same weights under other conditions."""
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
        """Return all stored trainings, in the experiment's order."""
        order = {arm.name: place for place, arm in enumerate(self._experiment.arms)}
        trainings = sorted(self._trained.values(), key=lambda trained: (order[trained.arm], trained.seed))
        return Reproduced(self._experiment.name, self._share, trainings, self._commands, self._note)


def _most_episodes(cells: Sequence[Cell]) -> int:
    """Return the largest number of episodes of any cell."""
    return max((cell.episodes for cell in cells), default=0)


def _main_cell(trained: TrainedArm) -> str:
    """Format the last inductive accuracy (or error) of a training, for the line that reports its end."""
    cell = next(cell for cell in reversed(trained.cells) if cell.measure in ("inductive", "mse"))
    if cell.measure in ERRORS:
        return f"mean squared error {SquaredError(cell.mean, cell.ci95, cell.episodes)}"
    return f"{cell.shots}-shot {Accuracy(cell.mean, cell.ci95, cell.episodes)} {cell.measure.replace('_', '-')}"
