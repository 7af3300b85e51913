"""What an experiment came to, as it is kept in result.json: everything that tables and figures are made of."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from torchreptile.config import Config
from torchreptile.errors import ConfigError, RunError
from torchreptile.evaluation import Evaluation
from torchreptile.published import PUBLISHED_FURTHER, Published, published
from torchreptile.results import MODES

FORMAT = "torchreptile-result-1"


@dataclass(frozen=True)
class Cell:
    """One measure of a training.

    Attributes:
        variant: the algorithm and its form, as in published.py.
        dataset, split, way, shots: on which classes.
        measure: transductive, non_transductive, or one of the algorithm's own; of functions mse or mse_before.
        mean, ci95: accuracy from 0 to 1, or error, and half its 95% confidence interval over episodes.
        episodes, eval_steps, eval_batch, seed: how it was measured.
        checkpoint: last, or best on validation classes.
        seconds: that this and the measures taken with it took.
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

    @property
    def published(self) -> Published | None:
        """What was published for it; on test classes, whichever it was measured on."""
        if self.measure in MODES:
            return published(self.variant, self.dataset, self.way, self.shots, self.measure == "transductive")
        return PUBLISHED_FURTHER.get((self.variant, self.dataset, self.way, self.measure))


def cells(evaluation: Evaluation, checkpoint: str) -> list[Cell]:
    """The measures of an evaluation."""
    task, its = evaluation.config.task, evaluation.config.evaluation
    return [
        Cell(
            evaluation.config.variant, task.title, evaluation.split, task.way, task.shots, name,
            measured.mean, measured.ci95, measured.episodes, its.eval_steps, its.eval_batch,
            evaluation.seed, checkpoint, round(evaluation.seconds, 1),
        )
        for name, measured in evaluation.result.measures().items()
    ]  # fmt: skip


@dataclass(frozen=True)
class Taken:
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

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.config.run.seed

    def content(self) -> dict[str, Any]:
        """Ready for JSON; settings where they are not the usual ones, the curve by columns."""
        usual = _flat(Config())
        columns = list(dict.fromkeys(key for line in self.curve for key in line))
        return {
            "arm": self.arm,
            "label": self.label,
            "settings": {name: value for name, value in _flat(self.config).items() if value != usual[name]},
            "outer_steps": self.outer_steps,
            "seconds": round(self.seconds, 1),
            "environment": self.environment,
            "cells": [dataclasses.asdict(cell) for cell in self.cells],
            "curve": {key: [line.get(key) for line in self.curve] for key in columns},
            "by_step": self.by_step,
        }

    @classmethod
    def of_content(cls, content: dict[str, Any]) -> Self:
        """What :meth:`content` made."""
        its = dict(content)
        columns = its.pop("curve")
        lines = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return cls(
            config=Config().replace(**its.pop("settings")),
            cells=[Cell(**cell) for cell in its.pop("cells")],
            curve=[{key: value for key, value in line.items() if value is not None} for line in lines],
            by_step=[(mean, ci95) for mean, ci95 in its.pop("by_step")],
            **its,
        )


@dataclass(frozen=True)
class Spread:
    """A measure over the seeds of an arm.

    Attributes:
        mean: over seeds.
        ci95: half the mean's 95% interval over all episodes of all seeds.
        between: the standard deviation between seeds; None for a single one.
        seeds: how many.
    """

    mean: float
    ci95: float
    between: float | None
    seeds: int

    @classmethod
    def over(cls, measured: Sequence[Cell]) -> Self:
        """From the same cell of several seeds, each measured on episodes of its own."""
        means = [cell.mean for cell in measured]
        return cls(
            statistics.fmean(means),
            math.hypot(*(cell.ci95 for cell in measured)) / len(measured),
            statistics.stdev(means) if len(means) > 1 else None,
            len(means),
        )


@dataclass(frozen=True)
class Reproduced:
    """An experiment, as far as it was carried out.

    Attributes:
        name: of the experiment.
        share: of the published outer steps, 1 for all of them.
        taken: every training, arm by arm.
        commands: that carried it out, one after another.
    """

    name: str
    share: float
    taken: list[Taken]
    commands: list[str]

    def arms(self) -> dict[str, list[Taken]]:
        """The seeds of every arm, by the arm's name."""
        arms: dict[str, list[Taken]] = {}
        for one in self.taken:
            arms.setdefault(one.arm, []).append(one)
        return arms

    def spreads(self) -> Iterator[tuple[Taken, Cell, Spread]]:
        """Every cell over the seeds of its arm, with the arm's first training and that cell of it."""
        for its in self.arms().values():
            for cell in its[0].cells:
                alike = [other for one in its for other in one.cells if _same(cell, other)]
                yield its[0], cell, Spread.over(alike)

    def to_json(self) -> str:
        """Everything, as JSON with a line for each training."""
        head = {"format": FORMAT, "name": self.name, "share": self.share, "commands": self.commands}
        lines = ",\n".join(json.dumps(one.content(), ensure_ascii=False) for one in self.taken)
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
        taken = [Taken.of_content(one) for one in content["trainings"]]
        return Reproduced(content["name"], float(content["share"]), taken, list(content["commands"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ConfigError) as error:
        raise RunError(f"{file}: not a readable result ({error})") from error


def _same(one: Cell, other: Cell) -> bool:
    """Whether they are one cell of two seeds."""
    return (one.split, one.shots, one.measure) == (other.split, other.shots, other.measure)


def _flat(config: Config) -> dict[str, Any]:
    return {name: value for group in dataclasses.asdict(config).values() for name, value in group.items()}
