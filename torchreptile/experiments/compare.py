"""Several algorithms on one task, trained under the same budget and measured alike: the work of ``reptile compare``."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from torchreptile.algorithms import ALGORITHMS, build_algorithm
from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.core.device import choose_device, precision_of
from torchreptile.core.environment import environment
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.core.files import write_text
from torchreptile.data.loading import require_split
from torchreptile.data.samplers import sampler_of
from torchreptile.data.splits import Split
from torchreptile.models.losses import answers
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate, split_store
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import MODES
from torchreptile.training.in_subprocess import train_in_subprocess
from torchreptile.training.progress_bars import CountBar
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.weights import Kept, MetaWeights, load_weights

ADAPTATIONS = 20  # timed one after another; their median counts


@dataclass(frozen=True)
class Trained:
    """One algorithm, trained once and measured.

    Attributes:
        evaluation: accuracies and all settings, of training and measurement; its ``step`` is the measured checkpoint's.
        steps: outer steps trained.
        seconds: of training, measurements on validation classes included.
        parameters: how many numbers are meta-learned; 0 where nothing is.
        adapt_ms: from one support set to the labels of its queries, each alone; median, one task at a time.
        peak_mib: memory of the training's process at its largest, on a GPU that which torch took there; of the last
            session, where there were several; 0 where the run was over before it was compared, so that nobody knows.
    """

    evaluation: Evaluation
    steps: int
    seconds: float
    parameters: int
    adapt_ms: float
    peak_mib: float

    @property
    def algorithm(self) -> str:
        """Which algorithm."""
        return self.evaluation.config.method.algorithm

    @property
    def seed(self) -> int:
        """Of the training; the measurement has the same."""
        return self.evaluation.config.run.seed

    def measured_on(self, split: Split, episodes: int) -> bool:
        """Whether it was measured so."""
        return (self.evaluation.split, self.evaluation.config.evaluation.eval_episodes) == (split, episodes)


@dataclass(frozen=True)
class Row:
    """One algorithm, over its seeds.

    Attributes:
        algorithm: which.
        seeds: how many trainings.
        accuracy: by mode, for those that apply, and by further measure: the mean over seeds, from 0 to 1; of functions
            by kind of error.
        ci95: likewise, half the width of the mean's 95% confidence interval over all episodes of all seeds.
        between: likewise, the standard deviation between seeds; None for a single one.
        steps, seconds, adapt_ms, peak_mib: means over seeds, see :class:`Trained`.
        parameters: how many numbers are meta-learned; 0 where nothing is.
    """

    algorithm: str
    seeds: int
    accuracy: dict[str, float]
    ci95: dict[str, float]
    between: dict[str, float | None]
    steps: float
    seconds: float
    adapt_ms: float
    peak_mib: float
    parameters: int

    @property
    def further(self) -> list[str]:
        """The measures that the algorithm has for itself."""
        return [name for name in self.accuracy if name not in (*MODES, "mse", "mse_before")]


@dataclass(frozen=True)
class Comparison:
    """What was trained so far, in the order asked for.

    Attributes:
        preset: the task, by its preset's name.
        trained: each algorithm and seed.
        environment: command, versions, hardware.
    """

    preset: str
    trained: list[Trained]
    environment: dict[str, Any]

    @property
    def budget(self) -> str:
        """What every training was allowed, for people."""
        minutes, steps = self.trained[0].evaluation.config.outer.max_minutes, self._given_steps
        allowed = [f"{minutes:g} minutes"] * bool(minutes) + [f"{steps:,} outer steps"] * bool(steps)
        return f"{' or '.join(allowed)} of training each" if allowed else "as many outer steps as published"

    @property
    def _given_steps(self) -> int:
        """The outer steps that all trainings have, 0 where they are the published ones."""
        for config in (trained.evaluation.config for trained in self.trained):
            algorithm, steps = config.method.algorithm, config.outer.outer_steps
            if ALGORITHMS[algorithm].meta_learns and steps != preset(self.preset, algorithm).outer.outer_steps:
                return steps
        return 0

    def rows(self) -> list[Row]:
        """One line per algorithm, in the order trained."""
        names = dict.fromkeys(trained.algorithm for trained in self.trained)
        return [_row(name, [trained for trained in self.trained if trained.algorithm == name]) for name in names]

    def to_json(self, others: Sequence[Trained] = ()) -> str:
        """Everything, as indented JSON; accuracies from 0 to 1.

        Args:
            others: measured before and not asked for now; they have no row.
        """
        trained = [
            dataclasses.asdict(trained) | {"evaluation": json.loads(trained.evaluation.to_json())}
            for trained in (*self.trained, *others)
        ]
        rows = [dataclasses.asdict(row) for row in self.rows()]
        content = {"preset": self.preset, "rows": rows, "trained": trained, "environment": self.environment}
        return json.dumps(content, indent=2)


def _row(algorithm: str, trained: Sequence[Trained]) -> Row:
    each = [seed.evaluation.result.measures() for seed in trained]
    by_measure = {name: [measures[name] for measures in each] for name in each[0]}
    return Row(
        algorithm,
        len(trained),
        accuracy={name: statistics.fmean(a.mean for a in seeds) for name, seeds in by_measure.items()},
        # Each seed has episodes of its own, so the errors of their means are independent.
        ci95={name: math.hypot(*(a.ci95 for a in seeds)) / len(seeds) for name, seeds in by_measure.items()},
        between={
            name: statistics.stdev(a.mean for a in seeds) if len(seeds) > 1 else None
            for name, seeds in by_measure.items()
        },
        steps=statistics.fmean(seed.steps for seed in trained),
        seconds=statistics.fmean(seed.seconds for seed in trained),
        adapt_ms=statistics.fmean(seed.adapt_ms for seed in trained),
        peak_mib=statistics.fmean([seed.peak_mib for seed in trained if seed.peak_mib] or [0.0]),
        parameters=trained[0].parameters,
    )


def compare(
    name: str,
    algorithms: Sequence[str],
    seeds: int,
    out: Path | str,
    *,
    split: Split = "test",
    episodes: int = 1000,
    quiet: bool = False,
    **changes: Any,
) -> Comparison | None:
    """Train every algorithm with every seed, each in a process of its own, and measure all alike.

    Where there are validation classes, the checkpoint that was best on them is measured. What is there already is
    kept, so the same call goes on after it was stopped. Under a budget (``max_minutes``, ``outer_steps``) the outer
    step size of all falls to 0, whatever was published for a whole training: one that ends early would else be
    measured while its weights still jump. Alike are the episodes too: they have as many queries as the
    preset says, whatever was published with an algorithm, because transductive accuracy depends on that.

    Args:
        name: a preset: the task, and the settings published with each algorithm for it.
        algorithms: their names.
        seeds: how many trainings of each, with the seeds 0, 1, ...
        out: folder for the run folders and ``comparison.json``.
        split: which classes to measure on.
        episodes: of each measurement.
        quiet: do not show on standard error how it goes.
        changes: settings that hold for all, such as ``max_minutes=20, split_scheme="vinyals"``; what learns nothing
            takes its one outer step all the same.

    Returns:
        All of it; None if a signal ended it before.

    Raises:
        ConfigError: settings cannot work.
        DataError: there is nothing to measure on.
        RunError: ``out`` holds runs with other settings, or a training failed.
    """
    out, planned = Path(out), plan(name, algorithms, seeds, episodes, changes)
    known, trained = _kept(out, name), {}
    folders = [RunFolder(out / f"{config.method.algorithm}-{config.run.seed}") for config in planned]
    for config, folder in zip(planned, folders, strict=True):
        folder.require_same(config)
    require_split(planned[0].task, split)
    for config, folder in zip(planned, folders, strict=True):
        steps = folder.steps_done()
        same_run = [done for done in known if done.steps == steps and done.evaluation.is_of(config)]
        # What else was measured there is of a run that is gone.
        key = (config.method.algorithm, config.run.seed)
        known = [done for done in known if done in same_run or (done.algorithm, done.seed) != key]
        found = next((done for done in same_run if done.measured_on(split, episodes)), None)
        if found is None:
            peak = same_run[0].peak_mib if same_run else train_in_subprocess(config, folder, quiet)
            if peak is None:
                return None
            found = _measured(folder, split, episodes, peak, quiet)
            known.append(found)
        trained[folder.path] = found
        comparison = Comparison(name, list(trained.values()), environment())
        others = [done for done in known if done not in comparison.trained]
        write_text(out / "comparison.json", comparison.to_json(others) + "\n")
    return comparison


def plan(name: str, algorithms: Sequence[str], seeds: int, episodes: int, changes: Mapping[str, Any]) -> list[Config]:
    """The settings of every training, in order; the arguments are those of :func:`compare`.

    Raises:
        ConfigError: settings cannot work.
    """
    task = preset(name)
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}; it must be at least 1")
    if not algorithms or len(set(algorithms)) < len(algorithms):
        raise ConfigError(f"algorithms is {' '.join(algorithms) or 'empty'}; name each once")
    alike = {"eval_episodes": episodes, "queries": task.evaluation.queries, **changes}
    if changes.get("max_minutes") or changes.get("outer_steps"):
        alike["outer_step_size_final"] = 0.0
    planned = []
    for algorithm in algorithms:
        config = preset(name, algorithm)
        steps = config.outer.outer_steps  # one, where there is nothing to learn
        config = config.replace(**alike)
        if not ALGORITHMS[algorithm].meta_learns:
            config = config.replace(outer_steps=steps)
        planned += [config.replace(seed=seed) for seed in range(seeds)]
    return planned


def _measured(folder: RunFolder, split: Split, episodes: int, peak: float, quiet: bool) -> Trained:
    """What one training came to."""
    config = folder.config()
    kept: Kept = "best" if folder.best.is_file() else "last"
    learned = load_weights(folder.path, choose_device(config.run.device), kept)
    with CountBar(Console(stderr=True, quiet=quiet), "evaluating", "episodes") as bar:
        evaluation = evaluate(
            folder.path,
            split,
            episodes=episodes,
            checkpoint=kept,
            seed=config.run.seed,
            device=config.run.device,
            precision=config.run.precision,
            on_progress=bar.update,
        )
    last = load_checkpoint(folder.last)
    return Trained(
        evaluation,
        steps=last.step,
        seconds=last.seconds,
        parameters=_learned_numbers(learned),
        adapt_ms=_adapt_ms(learned, split),
        peak_mib=peak,
    )


def _learned_numbers(learned: MetaWeights) -> int:
    meta_learns = ALGORITHMS[learned.config.method.algorithm].meta_learns
    return sum(p.numel() for p in learned.state.params.values()) if meta_learns else 0


def _adapt_ms(learned: MetaWeights, split: Split) -> float:
    """Median time from a support set to the labels of its queries, one task at a time."""
    config, device = learned.config, choose_device(learned.config.run.device)
    store = split_store(config, split, learned.scale).to(device)
    sampler = sampler_of(store, config.task.way, config.task.shots, config.evaluation.queries)
    generator = torch.Generator(device).manual_seed(0)
    taken = []
    with precision_of(device, config.run.precision), torch.no_grad():
        work = config.evaluation.eval_episodes * config.evaluation.eval_steps  # the execution is the evaluation's
        algorithm = build_algorithm(config, store.image_shape, device, work, targets=store.targets)
        for _ in range(1 + ADAPTATIONS):
            episode = sampler.sample(1, generator)
            drawn = algorithm.draw(1, episode.support_y.shape[1], generator)
            start = time.perf_counter()
            with algorithm.execution.claim():
                adapted = algorithm.adapt(learned.state, episode.support_x, episode.support_y, drawn)
                answers(adapted.inductive(episode.query_x), episode.query_y).cpu()  # waits for a GPU to be done
            taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[1:])  # the first warms up


def _kept(out: Path, name: str) -> list[Trained]:
    """What an earlier call measured.

    Raises:
        RunError: the file is damaged, or of another task.
    """
    file = out / "comparison.json"
    if not file.is_file():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["preset"] != name:
            raise RunError(f"{out} compares on {content['preset']}; name another folder with --out")
        return [
            Trained(**fields | {"evaluation": Evaluation.from_json(json.dumps(fields["evaluation"]))})
            for fields in content["trained"]
        ]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{file}: not readable ({error}); delete it to measure again") from error
