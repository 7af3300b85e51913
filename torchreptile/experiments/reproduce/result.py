"""What an experiment came to, as it is kept in result.json: everything that tables and figures are made of."""

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
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.experiments.reproduce.experiment import Experiment, Measurement
from torchreptile.training.evaluation.published import Published, published_measure
from torchreptile.training.evaluation.record import Evaluation

FORMAT = "torchreptile-result-1"
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t that 95% are within, for 1, 2, ... degrees of freedom; the last one serves for more."""


class Conditions(NamedTuple):
    """How a training was measured: what tells measurements of the same weights apart."""

    split: str
    episodes: int
    measurement: Measurement


@dataclass(frozen=True)
class Cell:
    """One measure of a training.

    Attributes:
        variant: the algorithm and its form, as in published.py.
        dataset, split, way, shots: on which classes.
        measure: transductive, inductive, or one of the algorithm's own; of functions mse or mse_before.
        mean, ci95: accuracy from 0 to 1, or error, and half its 95% confidence interval over episodes.
        episodes, eval_steps, eval_batch, seed, finetune_steps: how it was measured.
        checkpoint: last, or best on validation classes.
        seconds: that this and the measures taken with it took.
        hardware: that measured: processor or GPU, threads, version of torch.
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

    @property
    def conditions(self) -> Conditions:
        """Which it shares with the measures taken with it, and with no others of its training."""
        how = Measurement(self.shots, self.eval_steps, self.eval_batch, self.finetune_steps)
        return Conditions(self.split, self.episodes, how)

    @property
    def published(self) -> Published | None:
        """What was published for it; on test classes, whichever it was measured on."""
        return published_measure(self.variant, self.dataset, self.way, self.shots, self.measure)


def run_name(arm: str, seed: int) -> str:
    """What the run folder of an arm's training is called."""
    return f"{arm}-seed{seed}"


def cells(evaluation: Evaluation, checkpoint: str) -> list[Cell]:
    """The measures of an evaluation."""
    task, settings = evaluation.config.task, evaluation.config.evaluation
    return [
        Cell(
            evaluation.config.variant, task.title, evaluation.split, task.way, task.shots, name,
            measured.mean, measured.ci95, measured.episodes, settings.eval_steps, settings.eval_batch,
            evaluation.seed, checkpoint, round(evaluation.seconds, 1), hardware(evaluation.environment),
            settings.finetune_steps,
        )
        for name, measured in evaluation.result.measures().items()
    ]  # fmt: skip


def hardware(environment: dict[str, Any]) -> str:
    """What computed, for people."""
    device, threads = environment.get("gpu") or environment.get("processor"), environment.get("threads")
    return f"{device}, {threads} thread{'s' * (threads != 1)}, torch {environment.get('torch')}"


@dataclass(frozen=True)
class Wave:
    """A function fitted, to be drawn.

    Attributes:
        x, truth, before, after: query points, and what the network says of them before and after all inner steps.
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
    """One training of an arm, and its measures.

    Attributes:
        arm, label: which.
        config: its settings, seed included.
        outer_steps: done.
        seconds: of training.
        environment: command, versions, hardware, threads of the training.
        cells: what was measured of it.
        curve: the lines of metrics.jsonl.
        by_step: of functions, the mean squared error and its interval after 0, 1, 2, ... inner steps.
        waves: of functions, some to be drawn.
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
        """Of the training."""
        return self.config.run.seed

    @property
    def name(self) -> str:
        """What its run folder is called."""
        return run_name(self.arm, self.seed)

    def content(self) -> dict[str, Any]:
        """Ready for JSON, the curve by columns."""
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
        """What :meth:`content` made."""
        fields = dict(content)
        columns = fields.pop("curve")
        lines = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return cls(
            config=Config.from_json(json.dumps(fields.pop("settings"))),
            cells=[Cell(**cell) for cell in fields.pop("cells")],
            curve=[{key: value for key, value in line.items() if value is not None} for line in lines],
            by_step=[(mean, ci95) for mean, ci95 in fields.pop("by_step")],
            waves=[Wave(**wave) for wave in fields.pop("waves")],
            **fields,
        )


def pooled(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean over seeds of (mean, half its interval over episodes), each of episodes of its own, and its interval."""
    means, margins = zip(*measured, strict=True)
    return statistics.fmean(means), math.hypot(*margins) / len(measured)


@dataclass(frozen=True)
class Spread:
    """A measure over the seeds of an arm.

    Attributes:
        mean: over seeds.
        ci95: half the mean's 95% interval over all episodes of all seeds.
        by_seed: each training's.
        episodes: of all seeds together.
    """

    mean: float
    ci95: float
    by_seed: dict[int, float]
    episodes: int

    @classmethod
    def over(cls, measured: Sequence[Cell]) -> Self:
        """From the same cell of several seeds, each measured on episodes of its own."""
        by_seed = {cell.seed: cell.mean for cell in measured}
        episodes = sum(cell.episodes for cell in measured)
        return cls(*pooled([(cell.mean, cell.ci95) for cell in measured]), by_seed, episodes)

    @property
    def seeds(self) -> int:
        """How many trainings."""
        return len(self.by_seed)

    @property
    def between(self) -> float | None:
        """The standard deviation between seeds; None for a single one."""
        return statistics.stdev(self.by_seed.values()) if self.seeds > 1 else None

    @property
    def margin(self) -> float:
        """Half the 95% interval over episodes or between seeds, whichever is wider; of one seed over episodes alone."""
        return max(self.ci95, between_seeds(list(self.by_seed.values()))) if self.seeds > 1 else self.ci95


def between_seeds(values: Sequence[float]) -> float:
    """Half the 95% interval of the mean of what several seeds came to, by Student's t."""
    quantile = STUDENT[min(len(values) - 1, len(STUDENT)) - 1]
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Reproduced:
    """An experiment, as far as it was carried out.

    Attributes:
        name: of the experiment.
        share: of the published outer steps, 1 for all of them.
        trainings: arm by arm.
        commands: that carried it out, one after another.
        note: what else must be known of where this comes from.
    """

    name: str
    share: float
    trainings: list[TrainedArm]
    commands: list[str]
    note: str = ""

    @property
    def seeds(self) -> list[int]:
        """Of all trainings, ascending."""
        return sorted({trained.seed for trained in self.trainings})

    @property
    def split(self) -> str:
        """The classes that findings and figures go by: those that most trainings were measured on, test before val."""
        measured = Counter(split for trained in self.trainings for split in {cell.split for cell in trained.cells})
        return max(("test", "val", "train"), key=lambda split: measured[split])

    def departure(self, experiment: Experiment) -> str:
        """Where it was trained or measured otherwise than that experiment says, for people; empty where nowhere.

        How often it was looked at on the way does not count: nothing is learned from that.
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
                    return f"{trained.name}: measured by {dataclasses.asdict(how)}, not {asked}"
        return ""

    def missing(self, experiment: Experiment) -> list[str]:
        """The trainings that it lacks: arms that only some of its seeds have."""
        seeds = self.seeds or [0]
        done = {(trained.arm, trained.seed) for trained in self.trainings}
        return [run_name(arm.name, seed) for arm in experiment.arms for seed in seeds if (arm.name, seed) not in done]

    def arms(self) -> dict[str, list[TrainedArm]]:
        """The seeds of every arm, by the arm's name."""
        arms: dict[str, list[TrainedArm]] = {}
        for trained in self.trainings:
            arms.setdefault(trained.arm, []).append(trained)
        return arms

    def spreads(self) -> Iterator[tuple[TrainedArm, Cell, Spread]]:
        """Every cell over those seeds of its arm that have it, with the arm's first training."""
        for seeds in self.arms().values():
            alike: dict[tuple[Conditions, str], list[Cell]] = {}
            for cell in (cell for trained in seeds for cell in trained.cells):
                alike.setdefault((cell.conditions, cell.measure), []).append(cell)
            for cells_alike in alike.values():
                yield seeds[0], cells_alike[0], Spread.over(cells_alike)

    def to_json(self) -> str:
        """Everything, as JSON with a line for each training."""
        head = {"format": FORMAT, "name": self.name, "share": self.share, "commands": self.commands, "note": self.note}
        lines = ",\n".join(json.dumps(trained.content(), ensure_ascii=False) for trained in self.trainings)
        return f'{json.dumps(head, ensure_ascii=False)[:-1]}, "trainings": [\n{lines}\n]}}\n'


def read_reproduced(file: Path) -> Reproduced:
    """What :meth:`Reproduced.to_json` wrote.

    Raises:
        RunError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise RunError(f"{file}: not a result of this version ({FORMAT})")
        trainings = [TrainedArm.of_content(training) for training in content["trainings"]]
        commands, note = [str(command) for command in content["commands"]], str(content["note"])
        return Reproduced(str(content["name"]), float(content["share"]), trainings, commands, note)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ConfigError) as error:
        raise RunError(f"{file}: not a readable result ({error}); delete it to go by the run folders") from error
