"""Differences between the arms of an experiment, and whether they exceed chance."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from torchreptile.experiments.reproduce.result import Cell, Reproduced, Spread, TrainedArm, between_seeds

LITTLE = 0.05  # an accuracy difference too small to matter


@dataclass(frozen=True)
class Difference:
    """A difference between two arms: the second minus the first, and half its 95% interval."""

    value: float
    margin: float

    @property
    def more(self) -> bool | None:
        """Whether the second is larger; None if the interval includes 0."""
        return None if abs(self.value) <= self.margin else self.value > 0

    @property
    def at_most_little_less(self) -> bool | None:
        """Whether the second is less than :data:`LITTLE` below the first; None if the interval includes both cases."""
        if self.value - self.margin > -LITTLE:
            return True
        return False if self.value + self.margin < -LITTLE else None

    def __str__(self) -> str:
        """Format in percentage points."""
        return f"{100 * self.value:+.1f} ± {100 * self.margin:.1f}"


def contrast(*terms: tuple[int, Spread]) -> Difference:
    """Return a linear combination of results with its interval.

    Trainings with the same seed are evaluated on the same episodes. With several common seeds, the combination is
    formed seed by seed and the interval is Student's t over seeds; with a single one it is that over episodes.

    Args:
        terms: (factor, result) pairs.
    """
    seeds = set.intersection(*(set(spread.by_seed) for _, spread in terms))
    if len(seeds) > 1:
        values = [sum(factor * spread.by_seed[seed] for factor, spread in terms) for seed in sorted(seeds)]
        return Difference(statistics.fmean(values), between_seeds(values))
    margins = (abs(factor) * spread.margin for factor, spread in terms)
    return Difference(sum(factor * spread.mean for factor, spread in terms), math.hypot(*margins))


def difference(one: Spread, other: Spread) -> Difference:
    """Return ``other`` minus ``one``."""
    return contrast((1, other), (-1, one))


def chosen(reproduced: Reproduced, measure: str) -> list[tuple[TrainedArm, Cell, Spread]]:
    """Return one result per arm on the experiment's split: the one with most episodes, then most seeds."""
    found: dict[str, tuple[TrainedArm, Cell, Spread]] = {}
    for row in reproduced.spreads():
        trained, cell, spread = row
        if (cell.measure, cell.split) != (measure, reproduced.split):
            continue
        before = found.get(trained.arm)
        if before is None or (cell.episodes, spread.seeds) > (before[1].episodes, before[2].seeds):
            found[trained.arm] = row
    return list(found.values())


def by_arm(reproduced: Reproduced, measure: str) -> dict[str, Spread]:
    """Return the results that :func:`chosen` selects, by name of the arm."""
    return {trained.arm: spread for trained, _, spread in chosen(reproduced, measure)}
