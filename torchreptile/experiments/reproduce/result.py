"""The results of an experiment as stored in result.json, from which tables and figures are made."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from torchreptile.core.config import Config
from torchreptile.core.config.validation import check_types
from torchreptile.core.environment import computed_by
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.core.files import read_text
from torchreptile.core.json_text import json_text, number_from
from torchreptile.core.sealed_json import CHECKSUM, parse_json, require_numbers, sealed, unsealed
from torchreptile.experiments.reproduce.experiment import Experiment, Measurement
from torchreptile.training.evaluation.labels import ERRORS
from torchreptile.training.evaluation.published import Published, published_measure
from torchreptile.training.evaluation.record import Evaluation

FORMAT = "torchreptile-result-1"
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Two-sided 95% quantiles of Student's t for 1, 2, ... degrees of freedom; the last is used for more."""


class Conditions(NamedTuple):
    """The conditions of an evaluation, which distinguish evaluations of the same weights."""

    split: str
    episodes: int
    measurement: Measurement


@dataclass(frozen=True)
class Cell:
    """One metric of an evaluated training: a cell of a table.

    Attributes:
        variant: the algorithm and its form, as in published.py.
        dataset, split, way, shots: the evaluated task.
        measure: ``transductive``, ``inductive`` or an extra metric; for regression ``mse`` or ``mse_before``.
        mean, ci95: accuracy from 0 to 1, or error, and half its 95% confidence interval over episodes.
        episodes, eval_steps, eval_batch, seed, finetune_steps: settings of the evaluation.
        checkpoint: ``last`` or ``best`` (on validation classes).
        seconds: duration of the evaluation, which gives all metrics of a mode at once.
        hardware: processor or GPU, threads and version of torch of the evaluation.
    """

    variant: str
    dataset: str
    split: str
    way: int
    shots: int
    measure: str
    mean: float
    ci95: float
    episodes: int
    eval_steps: int
    eval_batch: int
    seed: int
    checkpoint: str
    seconds: float
    hardware: str
    finetune_steps: int = 0

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """Restore a cell from ``dataclasses.asdict`` read back from JSON, its types and ranges checked."""
        cell = cls(**content | {name: number_from(content[name]) for name in ("mean", "ci95")})
        check_types(cell)
        error = cell.measure in ERRORS
        require_numbers({"mean": cell.mean}, high=math.inf if error else 1.0)
        require_numbers({"ci95": cell.ci95, "seconds": cell.seconds, "eval_steps": cell.eval_steps})
        return cell

    @property
    def conditions(self) -> Conditions:
        """Conditions of the evaluation, equal for all metrics from the same evaluation."""
        measurement = Measurement(self.shots, self.eval_steps, self.eval_batch, self.finetune_steps)
        return Conditions(self.split, self.episodes, measurement)

    @property
    def published(self) -> Published | None:
        """Published number for this cell, which is always on test classes; None if there is none."""
        return published_measure(self.variant, self.dataset, self.way, self.shots, self.measure)


def run_name(arm: str, seed: int) -> str:
    """Return the name of the run folder of an arm's training."""
    return f"{arm}-seed{seed}"


def cells(evaluation: Evaluation, checkpoint: str) -> list[Cell]:
    """Return an evaluation's metrics as cells."""
    task, settings = evaluation.config.task, evaluation.config.evaluation
    return [
        Cell(
            evaluation.config.variant, task.title, evaluation.split, task.way, task.shots, name,
            measured.mean, measured.ci95, measured.episodes, settings.eval_steps, settings.eval_batch,
            evaluation.seed, checkpoint, round(evaluation.seconds, 1), computed_by(evaluation.environment),
            settings.finetune_steps,
        )
        for name, measured in evaluation.result.measures().items()
    ]  # fmt: skip


@dataclass(frozen=True)
class Wave:
    """A sine wave and its fit, for figures.

    Attributes:
        x, truth: query points.
        before, after: the network's predictions at ``x`` before and after all inner steps.
        known_x, known_y: support points.
    """

    x: list[float]
    truth: list[float]
    before: list[float]
    after: list[float]
    known_x: list[float]
    known_y: list[float]


@dataclass(frozen=True)
class TrainedArm:
    """One training of an arm with its evaluations.

    Attributes:
        arm, label: name and label of the arm.
        config: settings of the training, including its seed.
        outer_steps: outer steps trained.
        seconds: training time.
        environment: command, versions, hardware and threads of the training.
        cells: metrics of its evaluations.
        curve: the lines of metrics.jsonl.
        by_step: for regression, (mean squared error, half its interval) after 0, 1, 2, ... inner steps.
        waves: for regression, a few fitted functions for figures.
    """

    arm: str
    label: str
    config: Config
    outer_steps: int
    seconds: float
    environment: dict[str, Any]
    cells: list[Cell]
    curve: list[dict[str, Any]] = field(default_factory=list)
    by_step: list[tuple[float, float]] = field(default_factory=list)
    waves: list[Wave] = field(default_factory=list)

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.config.run.seed

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return run_name(self.arm, self.seed)

    def content(self) -> dict[str, Any]:
        """Return everything in a form that JSON can hold, the curve as columns."""
        columns = list(dict.fromkeys(key for line in self.curve for key in line))
        return {
            "arm": self.arm,
            "label": self.label,
            "settings": dataclasses.asdict(self.config),
            "outer_steps": self.outer_steps,
            "seconds": self.seconds,
            "environment": self.environment,
            "cells": [dataclasses.asdict(cell) for cell in self.cells],
            "curve": {key: [line.get(key) for line in self.curve] for key in columns},
            "by_step": self.by_step,
            "waves": [dataclasses.asdict(wave) for wave in self.waves],
        }

    @classmethod
    def of_content(cls, content: dict[str, Any]) -> Self:
        """Restore a training from what :meth:`content` returned."""
        fields = dict(content)
        require_numbers({"outer_steps": fields["outer_steps"]}, whole=True)
        require_numbers({"seconds": fields["seconds"]})
        columns = fields.pop("curve")
        lines = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return cls(
            config=Config.from_json(json.dumps(fields.pop("settings"))),
            cells=[Cell.from_content(cell) for cell in fields.pop("cells")],
            curve=[{key: value for key, value in line.items() if value is not None} for line in lines],
            by_step=[(number_from(mean), number_from(ci95)) for mean, ci95 in fields.pop("by_step")],
            waves=[Wave(**wave) for wave in fields.pop("waves")],
            **fields,
        )


def pooled(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Average results of several seeds, each a (mean, half its interval) over different episodes.

    Returns:
        The mean over seeds and half its 95% interval over all episodes.
    """
    means, margins = zip(*measured, strict=True)
    return statistics.fmean(means), math.hypot(*margins) / len(measured)


@dataclass(frozen=True)
class Spread:
    """One metric of an arm over its seeds.

    Attributes:
        mean: mean over seeds.
        ci95: half the 95% confidence interval of the mean over all episodes of all seeds.
        by_seed: each training's mean.
        episodes: number of episodes of all seeds together.
    """

    mean: float
    ci95: float
    by_seed: dict[int, float]
    episodes: int

    @classmethod
    def over(cls, measured: Sequence[Cell]) -> Self:
        """Combine the same cell of several seeds, each evaluated on different episodes."""
        by_seed = {cell.seed: cell.mean for cell in measured}
        episodes = sum(cell.episodes for cell in measured)
        return cls(*pooled([(cell.mean, cell.ci95) for cell in measured]), by_seed, episodes)

    @property
    def seeds(self) -> int:
        """Number of trainings."""
        return len(self.by_seed)

    @property
    def between(self) -> float | None:
        """Standard deviation between seeds; None for a single seed."""
        return statistics.stdev(self.by_seed.values()) if self.seeds > 1 else None

    @property
    def margin(self) -> float:
        """Half the 95% interval over episodes or between seeds, whichever is wider; over episodes for a single seed."""
        return max(self.ci95, between_seeds(list(self.by_seed.values()))) if self.seeds > 1 else self.ci95


def between_seeds(values: Sequence[float]) -> float:
    """Return half the 95% interval of the mean over seeds, by Student's t."""
    quantile = STUDENT[min(len(values) - 1, len(STUDENT)) - 1]
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Reproduced:
    """The finished trainings of an experiment.

    Attributes:
        name: name of the experiment.
        share: share of the published outer steps, 1 for all of them.
        trainings: the finished trainings, arm by arm.
        commands: the commands that produced them, in order.
        note: remark on their origin, empty if there is none.
    """

    name: str
    share: float
    trainings: list[TrainedArm]
    commands: list[str]
    note: str = ""

    @property
    def seeds(self) -> list[int]:
        """Seeds of all trainings, ascending."""
        return sorted({trained.seed for trained in self.trainings})

    @property
    def split(self) -> str:
        """Split that findings and figures use: the one most trainings were evaluated on; test before val on a tie."""
        measured = Counter(split for trained in self.trainings for split in {cell.split for cell in trained.cells})
        return max(("test", "val", "train"), key=lambda split: measured[split])

    def departure(self, experiment: Experiment) -> str:
        """Describe the first deviation from the experiment's settings; empty if there is none.

        How often a training was monitored does not count, because it does not influence the weights.
        """
        arms = {arm.name: arm for arm in experiment.shortened(self.share).arms}
        for trained in self.trainings:
            if trained.arm not in arms:
                return f"{trained.arm}, which {experiment.name} does not have"
            arm = arms[trained.arm]
            wanted = arm.config.replace(seed=trained.seed, monitor_every=trained.config.run.monitor_every)
            if departure := trained.config.departure(wanted):
                return f"{trained.name}: {departure}"
            for how in (cell.conditions.measurement for cell in trained.cells):
                if how not in arm.measurements:
                    asked = " or ".join(str(dataclasses.asdict(measurement)) for measurement in arm.measurements)
                    return f"{trained.name}: evaluated with {dataclasses.asdict(how)}, not {asked}"
        return ""

    def missing(self, experiment: Experiment) -> list[str]:
        """Return the names of missing trainings: arms that not all of its seeds have."""
        seeds = self.seeds or [0]
        done = {(trained.arm, trained.seed) for trained in self.trainings}
        return [run_name(arm.name, seed) for arm in experiment.arms for seed in seeds if (arm.name, seed) not in done]

    def arms(self) -> dict[str, list[TrainedArm]]:
        """Return the trainings of every arm, one per seed, by the arm's name."""
        arms: dict[str, list[TrainedArm]] = {}
        for trained in self.trainings:
            arms.setdefault(trained.arm, []).append(trained)
        return arms

    def spreads(self) -> Iterator[tuple[TrainedArm, Cell, Spread]]:
        """Yield every cell combined over its arm's seeds: the arm's first training, its cell, and the combination."""
        for seeds in self.arms().values():
            alike: dict[tuple[Conditions, str], list[Cell]] = {}
            for cell in (cell for trained in seeds for cell in trained.cells):
                alike.setdefault((cell.conditions, cell.measure), []).append(cell)
            for cells_alike in alike.values():
                yield seeds[0], cells_alike[0], Spread.over(cells_alike)

    def to_json(self) -> str:
        """Return the result as JSON with one line per training."""
        head = {"format": FORMAT, "name": self.name, "share": self.share, "commands": self.commands, "note": self.note}
        trainings = [trained.content() for trained in self.trainings]
        head[CHECKSUM] = sealed(head | {"trainings": trainings})[CHECKSUM]
        lines = ",\n".join(json_text(trained, ascii_only=False) for trained in trainings)
        return f'{json_text(head, ascii_only=False)[:-1]}, "trainings": [\n{lines}\n]}}\n'


def read_reproduced(file: Path) -> Reproduced:
    """Read a result.json file.

    Raises:
        RunError: the file cannot be read, is damaged, has changed since it was written, or has another format.
    """
    try:
        content = unsealed(parse_json(read_text(file)))
        if content["format"] != FORMAT:
            raise RunError(f"{file}: not in this version's format ({FORMAT})")
        trainings = [TrainedArm.of_content(training) for training in content["trainings"]]
        commands, note = [str(command) for command in content["commands"]], str(content["note"])
        return Reproduced(str(content["name"]), float(content["share"]), trainings, commands, note)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ConfigError) as error:
        raise RunError(f"{file}: not readable ({error}); delete it to rebuild it from the run folders") from error
