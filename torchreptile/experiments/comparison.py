"""The result of a comparison: its trainings, a row per algorithm, and comparison.json."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchreptile.core.config.algorithm_table import algorithm_row
from torchreptile.core.config.presets import preset
from torchreptile.core.errors import RunError
from torchreptile.core.files import read_text
from torchreptile.core.json_text import json_text
from torchreptile.core.sealed_json import parse_json, require_numbers, sealed, unsealed
from torchreptile.data.splits import Split
from torchreptile.training.evaluation.labels import MODES
from torchreptile.training.evaluation.record import Evaluation

FILE = "comparison.json"


@dataclass(frozen=True)
class Trained:
    """One algorithm, trained with one seed and evaluated.

    Attributes:
        evaluation: accuracies, and all settings of training and evaluation; its ``step`` is the evaluated checkpoint's.
        steps: outer steps trained.
        seconds: training time, including evaluation on validation classes.
        parameters: number of meta-learned parameters; 0 for an algorithm that meta-learns nothing.
        adapt_ms: milliseconds from one support set to the inductive labels of its queries; median, one task at a time.
        peak_mib: peak memory in MiB of the training process (on a GPU, the memory that torch allocated there) in the
            last session; 0 if the run had finished before it was compared, so that its peak is unknown.
    """

    evaluation: Evaluation
    steps: int
    seconds: float
    parameters: int
    adapt_ms: float
    peak_mib: float

    @property
    def algorithm(self) -> str:
        """Name of the algorithm."""
        return self.evaluation.config.method.algorithm

    @property
    def seed(self) -> int:
        """Seed of the training, used by the evaluation too."""
        return self.evaluation.config.run.seed

    def measured_on(self, split: Split, episodes: int) -> bool:
        """Return whether the evaluation used this split and this number of episodes."""
        return (self.evaluation.split, self.evaluation.config.evaluation.eval_episodes) == (split, episodes)


@dataclass(frozen=True)
class Row:
    """One algorithm, averaged over its seeds: a line of the table.

    Attributes:
        algorithm: name of the algorithm.
        seeds: number of trainings.
        accuracy: mean over seeds, from 0 to 1, by mode (those that apply) and by extra metric; for regression the
            errors by kind.
        ci95: half the width of the 95% confidence interval of that mean over all episodes of all seeds, by the same
            keys.
        between: standard deviation between seeds, by the same keys; None for a single seed.
        steps, seconds, adapt_ms, peak_mib: means over seeds, see :class:`Trained`.
        parameters: number of meta-learned parameters; 0 for an algorithm that meta-learns nothing.
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
    def extra_metrics(self) -> list[str]:
        """Names of the metrics that only this algorithm reports."""
        return [name for name in self.accuracy if name not in (*MODES, "mse", "mse_before")]


@dataclass(frozen=True)
class Comparison:
    """All trainings of a comparison that are finished, in the requested order.

    Attributes:
        preset: name of the preset that defines the task.
        trained: one entry per algorithm and seed.
        environment: command, versions, hardware.
    """

    preset: str
    trained: list[Trained]
    environment: dict[str, Any]

    @property
    def budget(self) -> str:
        """Training budget of each run, in words."""
        minutes, steps = self.trained[0].evaluation.config.outer.max_minutes, self._given_steps
        allowed = [f"{minutes:g} minutes"] * bool(minutes) + [f"{steps:,} outer steps"] * bool(steps)
        return f"{' or '.join(allowed)} of training each" if allowed else "as many outer steps as published"

    @property
    def _given_steps(self) -> int:
        """Number of outer steps requested for all trainings; 0 if they use the published numbers."""
        for config in (trained.evaluation.config for trained in self.trained):
            algorithm, steps = config.method.algorithm, config.outer.outer_steps
            if algorithm_row(algorithm).meta_learns and steps != preset(self.preset, algorithm).outer.outer_steps:
                return steps
        return 0

    def rows(self) -> list[Row]:
        """Return one row per algorithm, in training order."""
        names = dict.fromkeys(trained.algorithm for trained in self.trained)
        return [_row(name, [trained for trained in self.trained if trained.algorithm == name]) for name in names]

    def to_json(self, others: Sequence[Trained] = ()) -> str:
        """Return the comparison as indented JSON; accuracies are from 0 to 1.

        Args:
            others: earlier trainings that were not requested this time; they are stored without a row.
        """
        trained = [
            dataclasses.asdict(trained) | {"evaluation": json.loads(trained.evaluation.to_json())}
            for trained in (*self.trained, *others)
        ]
        rows = [dataclasses.asdict(row) for row in self.rows()]
        content = {"preset": self.preset, "rows": rows, "trained": trained, "environment": self.environment}
        return json_text(sealed(content), indent=2)


def _row(algorithm: str, trained: Sequence[Trained]) -> Row:
    """Average an algorithm's trainings."""
    each = [seed.evaluation.result.measures() for seed in trained]
    by_measure = {name: [measures[name] for measures in each] for name in each[0]}
    return Row(
        algorithm,
        len(trained),
        accuracy={name: statistics.fmean(a.mean for a in seeds) for name, seeds in by_measure.items()},
        # Seeds are evaluated on different episodes, so the errors of their means are independent.
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


def _trained_from(fields: dict[str, Any]) -> Trained:
    """Restore a training from its part of comparison.json; raise ValueError for numbers that cannot be."""
    trained = Trained(**fields | {"evaluation": Evaluation.from_json(json.dumps(fields["evaluation"]))})
    require_numbers({"steps": trained.steps, "parameters": trained.parameters}, whole=True)
    require_numbers({"seconds": trained.seconds, "adapt_ms": trained.adapt_ms, "peak_mib": trained.peak_mib})
    return trained


def earlier_trainings(out: Path, name: str) -> list[Trained]:
    """Read what earlier calls trained and evaluated.

    Raises:
        RunError: the file is damaged or belongs to another task.
    """
    file = out / FILE
    if not file.is_file():
        return []
    try:
        content = unsealed(parse_json(read_text(file)))
        if content["preset"] != name:
            raise RunError(f"{out} compares on {content['preset']}; name another folder with --out")
        return [_trained_from(fields) for fields in content["trained"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RunError(f"{file}: not readable ({error}); delete it to measure again") from error
