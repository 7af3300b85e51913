"""The definition of an experiment: trainings that differ in one respect, and how each is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torchreptile.core.config import MEASUREMENTS, Config
from torchreptile.core.errors import ConfigError

FEWEST_BETWEEN = 100  # outer steps between two monitoring evaluations

Kind = Literal["row", "waves", "combinations", "overlap"]


@dataclass(frozen=True)
class Measurement:
    """One evaluation of a training: the arguments of :func:`torchreptile.evaluate` that distinguish table cells.

    Attributes:
        shots: support images per class, or points per function.
        eval_steps, eval_batch: inner steps on the support set, and images per inner batch.
        finetune_steps: fine-tuning steps of a metric learner's embedding in every episode.
    """

    shots: int
    eval_steps: int
    eval_batch: int
    finetune_steps: int = 0

    @classmethod
    def of(cls, config: Config) -> Measurement:
        """Return the evaluation that ``config`` describes."""
        evaluation = config.evaluation
        return cls(config.task.shots, evaluation.eval_steps, evaluation.eval_batch, evaluation.finetune_steps)


@dataclass(frozen=True)
class Arm:
    """One training of an experiment, repeated with several seeds.

    Attributes:
        name: start of the names of its run folders.
        label: label in figures and tables.
        config: all settings except the seed.
        measurements: evaluations of the trained weights.
    """

    name: str
    label: str
    config: Config
    measurements: tuple[Measurement, ...]

    @classmethod
    def of(cls, name: str, label: str, config: Config) -> Arm:
        """Return an arm with a single evaluation, the one its own settings describe."""
        return cls(name, label, config, (Measurement.of(config),))


@dataclass(frozen=True)
class Experiment:
    """A row of a table or a figure of a paper.

    Attributes:
        name: name on the command line.
        what: description in one line.
        source: publication and section.
        kind: how results are presented.
        arms: the trainings.
        seeds: default number of trainings per arm.
        episodes: default number of episodes per evaluation.
    """

    name: str
    what: str
    source: str
    kind: Kind
    arms: tuple[Arm, ...]
    seeds: int = 1
    episodes: int = 10_000

    def shortened(self, share: float) -> Experiment:
        """Return the experiment with a share of its outer steps; step sizes still follow their full schedule.

        Raises:
            ConfigError: ``share`` is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise ConfigError(f"budget is {share:g}; it is a share of the published outer steps, above 0 and at most 1")
        if share == 1:
            return self

        def shorten(config: Config) -> Config:
            steps, halving = config.outer.outer_steps, config.outer.outer_halve_every
            halving = max(1, round(share * halving)) if halving else 0
            steps = max(1, round(share * steps))
            # A short training must not spend most of its time on monitoring.
            every = round(share * config.run.monitor_every)
            every = max(every, FEWEST_BETWEEN) if every or steps < MEASUREMENTS * FEWEST_BETWEEN else 0
            return config.replace(outer_steps=steps, outer_halve_every=halving, monitor_every=every)

        return self.changed(shorten)

    def changed(self, change: Callable[[Config], Config]) -> Experiment:
        """Return the experiment with ``change`` applied to every arm's settings."""
        return replace(self, arms=tuple(replace(arm, config=change(arm.config)) for arm in self.arms))
