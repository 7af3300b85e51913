"""How far apart what was measured of several arms is, and whether that is more than chance."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from torchreptile.experiments.reproduce.result import Cell, Reproduced, Spread, TrainedArm, between_seeds

LITTLE = 0.05  # a difference in accuracy that does not matter


@dataclass(frozen=True)
class Difference:
    """Between two arms: how much more the second has, and half the 95% interval of that."""

    value: float
    margin: float

    @property
    def more(self) -> bool | None:
        """Whether the second has more; None where it cannot be told."""
        return None if abs(self.value) <= self.margin else self.value > 0

    @property
    def none_that_matters(self) -> bool | None:
        """Whether the second has no less than the first but for :data:`LITTLE`; None where it cannot be told."""
        if self.value - self.margin > -LITTLE:
            return True
        return False if self.value + self.margin < -LITTLE else None

    def __str__(self) -> str:
        """In percent points."""
        return f"{100 * self.value:+.1f} ± {100 * self.margin:.1f}"


def contrast(*terms: tuple[int, Spread]) -> Difference:
    """A sum of spreads with these factors, such as of one less another.

    Trainings with one seed are measured on the same episodes: of several seeds the interval is that of what the seeds
    come to one by one (Student's t), of a single one that over episodes.
    """
    seeds = set.intersection(*(set(spread.by_seed) for _, spread in terms))
    if len(seeds) > 1:
        values = [sum(factor * spread.by_seed[seed] for factor, spread in terms) for seed in sorted(seeds)]
        return Difference(statistics.fmean(values), between_seeds(values))
    margins = (abs(factor) * spread.margin for factor, spread in terms)
    return Difference(sum(factor * spread.mean for factor, spread in terms), math.hypot(*margins))


def difference(one: Spread, other: Spread) -> Difference:
    """How much more ``other`` has than ``one``."""
    return contrast((1, other), (-1, one))


def chosen(reproduced: Reproduced, measure: str) -> list[tuple[TrainedArm, Cell, Spread]]:
    """Of every arm what was measured on most episodes, and of those with most seeds, on the classes that count."""
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
    """The same by the arms' names."""
    return {trained.arm: spread for trained, _, spread in chosen(reproduced, measure)}
