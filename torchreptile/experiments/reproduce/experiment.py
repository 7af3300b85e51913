"""What an experiment is: trainings that differ in one thing, and what is measured of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from torchreptile.core.config import MEASUREMENTS, Config
from torchreptile.core.errors import ConfigError

FEWEST_BETWEEN = 100  # outer steps between two looks at training and validation classes

Kind = Literal["row", "waves", "combinations", "overlap"]


@dataclass(frozen=True)
class Measurement:
    """What is asked of a training: the arguments of :func:`torchreptile.evaluate` that tell cells apart.

    Attributes:
        shots: support images per class, or points.
        eval_steps, eval_batch: inner steps on them, and images in each.
        finetune_steps: by which a metric learner's embedding is trained on in every episode.
    """

    shots: int
    eval_steps: int
    eval_batch: int
    finetune_steps: int = 0

    @classmethod
    def of(cls, config: Config) -> Measurement:
        """The one that those settings ask for."""
        how = config.evaluation
        return cls(config.task.shots, how.eval_steps, how.eval_batch, how.finetune_steps)


@dataclass(frozen=True)
class Arm:
    """One way to train, with as many seeds as are asked for.

    Attributes:
        name: of its run folders.
        label: for people: a line of a figure.
        config: all settings but the seed.
        measurements: what is asked of it.
    """

    name: str
    label: str
    config: Config
    measurements: tuple[Measurement, ...]

    @classmethod
    def of(cls, name: str, label: str, config: Config) -> Arm:
        """Measured as its own settings say."""
        return cls(name, label, config, (Measurement.of(config),))


@dataclass(frozen=True)
class Experiment:
    """A table row or a figure.

    Attributes:
        name: what is typed.
        what: it in one line.
        source: where it was published.
        kind: how it is shown.
        arms: what is trained.
        seeds: trainings of each arm, if nobody asks for another number.
        episodes: of each measurement, likewise.
    """

    name: str
    what: str
    source: str
    kind: Kind
    arms: tuple[Arm, ...]
    seeds: int = 1
    episodes: int = 10_000

    def shortened(self, share: float) -> Experiment:
        """The same with that share of the outer steps, the step size going through its whole schedule all the same.

        Raises:
            ConfigError: the share is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise ConfigError(f"budget is {share:g}; it is a share of the published outer steps, above 0 and at most 1")
        if share == 1:
            return self

        def part(config: Config) -> Config:
            steps, halving = config.outer.outer_steps, config.outer.outer_halve_every
            halving = max(1, round(share * halving)) if halving else 0
            steps = max(1, round(share * steps))
            # A short training must not do little else than to look at what it does.
            often = round(share * config.run.monitor_every)
            often = max(often, FEWEST_BETWEEN) if often or steps < MEASUREMENTS * FEWEST_BETWEEN else 0
            return config.replace(outer_steps=steps, outer_halve_every=halving, monitor_every=often)

        return self.changed(part)

    def changed(self, change: Callable[[Config], Config]) -> Experiment:
        """The same with every arm's settings changed."""
        return replace(self, arms=tuple(replace(arm, config=change(arm.config)) for arm in self.arms))
