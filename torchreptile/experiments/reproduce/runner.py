"""Run an experiment: train and evaluate what is missing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from torchreptile.algorithms.custom import CustomCode
from torchreptile.core.config import Config
from torchreptile.core.config.validation import at_least
from torchreptile.core.device import choose_device
from torchreptile.core.distributed.jobs import Job, JobsError, do_jobs
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.data.loading import require_split
from torchreptile.data.splits import Split
from torchreptile.experiments.reproduce.experiment import Experiment
from torchreptile.experiments.reproduce.result import Reproduced, TrainedArm, run_name
from torchreptile.experiments.reproduce.result_file import RESULT, ResultFile
from torchreptile.experiments.reproduce.training_job import TrainingJob
from torchreptile.training.evaluation.labels import ERRORS
from torchreptile.training.evaluation.results import Accuracy, SquaredError
from torchreptile.training.progress_bars import ManyBar, StandardError
from torchreptile.training.run_folder import LOCK, RunFolder


class TrainingsError(RunError):
    """Some trainings of an experiment failed; the results of the others are stored.

    Attributes:
        others: the experiment without the failed trainings.
    """

    def __init__(self, message: str, others: Reproduced) -> None:
        super().__init__(message)
        self.others = others


@dataclass(frozen=True)
class ExperimentOptions:
    """How an experiment is run.

    Attributes:
        share: share of the published outer steps; step sizes still follow their full schedule.
        seeds: trainings per arm, with seeds 0, 1, ...; 0 for the experiment's default.
        split: classes to evaluate on.
        episodes: episodes per evaluation; 0 for the experiment's default.
        at_once: trainings that run in parallel; 0 for one per thread on a CPU and one on a GPU. They share the threads,
            except where the number of threads changes how sums are rounded: there a training always has as many,
            whether it runs alone or with others.
        device, execution, data_root: as for a training. Execution ``auto`` leaves a resumed training the execution it
            began with.

    Raises:
        ConfigError: a value is out of range.
    """

    share: float = 1.0
    seeds: int = 0
    split: Split = "test"
    episodes: int = 0
    at_once: int = 0
    device: str = "auto"
    execution: str = "auto"
    data_root: str = ""

    def __post_init__(self) -> None:
        at_least(0, seeds=self.seeds, at_once=self.at_once)
        if self.episodes < 0 or self.episodes == 1:
            raise ConfigError(f"episodes is {self.episodes}; it must be at least 2, or 0 for the default")

    def jobs(self, experiment: Experiment, out: Path) -> list[TrainingJob]:
        """Return all trainings of an experiment with their evaluations, by arm and seed.

        Raises:
            ConfigError: ``share`` is out of range, or the experiment has no classes to split.
            DataError: a data set or the split is missing.
        """

        def computed(config: Config) -> Config:
            where = config.replace(device=self.device, execution=self.execution, data_root=self.data_root)
            return config.computed_as(where)

        arms = experiment.shortened(self.share).changed(computed).arms
        for task in {arm.config.task.dataset: arm.config.task for arm in arms}.values():
            if task.drawn and self.split != "test":
                raise ConfigError(f"split is {self.split}, but {experiment.name} has no classes to split; leave it out")
            require_split(task, self.split)  # now, not after hours of training
        return [
            TrainingJob(
                arm,
                arm.config.replace(seed=seed),
                RunFolder(out / run_name(arm.name, seed)),
                self.split,
                self.episodes or experiment.episodes,
            )
            for arm in arms
            for seed in range(self.seeds or experiment.seeds)
        ]


def run_experiment(
    experiment: Experiment, out: Path | str, options: ExperimentOptions | None = None, *, quiet: bool = False
) -> Reproduced | None:
    """Train and evaluate what is missing of an experiment.

    An interrupted call is resumed by repeating it: trainings continue from their checkpoints, and finished evaluations
    are reused. A call with another ``split`` or number of ``episodes`` evaluates the same trainings again and adds
    the results.

    Args:
        experiment: the experiment.
        out: folder for the run folders and result.json.
        options: how it is run; by default as published, on test classes.
        quiet: show nothing on standard error.

    Returns:
        The results, or None if a signal interrupted the call.

    Raises:
        ConfigError: the options do not suit the experiment.
        DataError: a data set is missing.
        RunError: ``out`` holds something else or is in use.
        TrainingsError: trainings failed; raised when all others have finished or stopped.

    Example (hours of training)::

        from torchreptile.experiments.reproduce import find_experiment

        results = run_experiment(find_experiment("omniglot-5way"), "runs/omniglot-5way", ExperimentOptions(share=0.25))
    """
    out, options = Path(out), options or ExperimentOptions()
    jobs = options.jobs(experiment, out)
    _require_ours(out, {job.folder.path.name for job in jobs})
    at_once, threads = _shares(experiment, jobs, options)
    with RunFolder(out).locked(make=True):
        results = ResultFile(out, experiment, options.share)
        for job in jobs:
            job.require_same()
        missing = [job for job in jobs if not results.has(job)]
        if not missing:
            note = f"everything was measured before; delete {out / RESULT} to measure again"
            StandardError(quiet=quiet).print(note, highlight=False, soft_wrap=True, markup=False)
        try:
            completed = _run_jobs(missing, results, at_once, threads, quiet)
        except JobsError as failed:
            raise TrainingsError(str(failed), results.reproduced()) from failed
        return results.reproduced() if completed else None


def _shares(experiment: Experiment, jobs: Sequence[TrainingJob], options: ExperimentOptions) -> tuple[int, int]:
    """Return how many trainings run at a time, and the threads of each.

    Where the number of threads decides how sums are rounded, it must not depend on how many trainings are asked for, or
    left: it is the share that each has with the experiment's default number of seeds.
    """
    threads = torch.get_num_threads()
    if any(job.rounds_by_threads() for job in jobs):
        each = max(1, threads // (len(experiment.arms) * experiment.seeds))
        return min(options.at_once or threads // each, len(jobs)), each
    on_cpu = choose_device(options.device).type == "cpu"
    at_once = min(options.at_once or (threads if on_cpu else 1), len(jobs))
    return at_once, max(1, threads // at_once)


def _require_ours(out: Path, names: set[str]) -> None:
    """Refuse a non-empty folder that holds nothing of the experiment.

    Raises:
        RunError: the folder holds something else.
    """
    found = {path.name for path in out.iterdir()} - {LOCK} if out.is_dir() else set()
    if found and not found & {RESULT, *names}:
        raise RunError(f"{out} holds something else ({sorted(found)[0]}, ...); name another folder with --out")


def _run_jobs(jobs: Sequence[TrainingJob], results: ResultFile, at_once: int, threads: int, quiet: bool) -> bool:
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
    with ManyBar(StandardError(quiet=quiet), works, shown=not alone) as bar:
        processes = [
            Job(str(job.folder.path), partial(job.run_experiment, alone), CustomCode.of(job.config).load)
            for job in jobs
        ]
        return do_jobs(processes, at_once, threads, on_message, on_done)


def _main_cell(trained: TrainedArm) -> str:
    """Format the last inductive accuracy (or error) of a training, for the line that reports its end."""
    cell = next(cell for cell in reversed(trained.cells) if cell.measure in ("inductive", "mse"))
    if cell.measure in ERRORS:
        return f"mean squared error {SquaredError(cell.mean, cell.ci95, cell.episodes)}"
    return f"{cell.shots}-shot {Accuracy(cell.mean, cell.ci95, cell.episodes)} {cell.measure.replace('_', '-')}"
