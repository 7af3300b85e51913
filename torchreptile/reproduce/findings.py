"""What the papers found, and whether it holds here: each as differences between arms with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torchreptile.reproduce.experiment import Kind
from torchreptile.reproduce.overlap import setting_of, usual
from torchreptile.reproduce.reproduced import Reproduced, Spread

COMPARED = "non_transductive"  # the measure that findings are about
LITTLE = 0.05  # a difference in accuracy below which one thing is "slightly" worse than another
REPEATED = 4  # mini-batches of 25 before cycling through 100 images repeats one


@dataclass(frozen=True)
class Finding:
    """Something a paper says.

    Attributes:
        what: it says.
        holds: whether it is so here; None where the difference is within what chance makes.
        numbers: that the verdict goes by.
    """

    what: str
    holds: bool | None
    numbers: str

    @property
    def verdict(self) -> str:
        """For people."""
        return {True: "holds", False: "does not hold", None: "cannot be told"}[self.holds]


@dataclass(frozen=True)
class Difference:
    """Between two arms: how much more the second has, and half the 95% interval of that."""

    value: float
    margin: float

    @property
    def sign(self) -> int:
        """1 for more, -1 for less, 0 where it cannot be told."""
        return 0 if abs(self.value) <= self.margin else int(math.copysign(1, self.value))

    def __str__(self) -> str:
        """In percent points."""
        return f"{100 * self.value:+.1f} ± {100 * self.margin:.1f}"


def difference(one: Spread, other: Spread) -> Difference:
    """How much more ``other`` has than ``one``."""
    return Difference(other.mean - one.mean, math.hypot(_margin(one), _margin(other)))


def _margin(spread: Spread) -> float:
    """Half the interval of a mean: over episodes or between seeds, whichever is wider."""
    between = 1.96 * (spread.between or 0.0) / math.sqrt(spread.seeds)
    return max(spread.ci95, between)


def findings(reproduced: Reproduced, kind: Kind) -> list[Finding]:
    """What can be said of an experiment of that kind; of arms that were not carried out nothing."""
    return _OF_KIND[kind](reproduced) if kind in _OF_KIND and reproduced.taken else []


def _combinations(reproduced: Reproduced) -> list[Finding]:
    where = _where(reproduced)
    by_arm = {taken.arm: its for taken, cell, its in reproduced.spreads() if (cell.measure, cell.split) == where}
    needed = {"last-of-1", *(f"{what}-of-{k}" for what in ("last", "mean", "sum") for k in (2, 3, 4))}
    if not needed <= by_arm.keys():
        return []
    behind = {arm: difference(by_arm["last-of-1"], its) for arm, its in by_arm.items() if arm != "last-of-1"}
    nearest = min(behind.values(), key=lambda its: its.value)
    slightly = difference(by_arm["sum-of-2"], by_arm["last-of-2"])
    steps = [difference(by_arm[f"sum-of-{k}"], by_arm[f"sum-of-{k + 1}"]) for k in (2, 3)]
    sums = [difference(by_arm[f"mean-of-{k}"], by_arm[f"sum-of-{k}"]) for k in (2, 3, 4)]
    return [
        Finding(
            "g1 alone learns least",
            _all_more([nearest]),
            f"the others have {nearest} points more or better",
        ),
        Finding(
            "g1 + g2 is slightly below g2 (first-order MAML)",
            None if slightly.sign == 0 else slightly.sign > 0 and slightly.value < LITTLE,
            f"g2 has {slightly} points more",
        ),
        Finding(
            "sums improve with each further gradient",
            _all_more(steps),
            f"the third adds {steps[0]} points, the fourth {steps[1]}",
        ),
        Finding(
            "a sum is ahead of its mean, which takes smaller steps",
            _all_more(sums),
            "of two, three and four gradients " + ", ".join(str(its) for its in sums) + " points",
        ),
    ]


def _where(reproduced: Reproduced) -> tuple[str, str]:
    """The measure and the split that findings go by: what was measured first."""
    return COMPARED, reproduced.taken[0].cells[0].split


def _all_more(differences: list[Difference]) -> bool | None:
    """Whether all are positive; None where none is negative and some cannot be told."""
    signs = [its.sign for its in differences]
    return False if min(signs) < 0 else None if 0 in signs else True


def _overlap(reproduced: Reproduced) -> list[Finding]:
    lines = sweep(reproduced, "inner_steps")
    sizes = sweep(reproduced, "inner_batch")
    needed = {f"{method}, {drawn}" for method in ("shared tail", "separate tail", "Reptile") for drawn in ("cycling",)}
    if not {*needed, "shared tail, replacement"} <= lines.keys():
        return []
    shared, gradual = lines["shared tail, cycling"], lines["shared tail, replacement"]
    first = min(steps for steps in shared if steps > REPEATED)
    drop = difference(shared[REPEATED], shared[first])
    gentler = difference(shared[first], gradual[first])
    found = [
        Finding(
            "a shared tail with cycling collapses once its last mini-batch was seen before",
            None if drop.sign == 0 else drop.sign < 0,
            f"from {REPEATED} to {first:g} inner steps {drop} points",
        ),
        Finding(
            "with replacement it degrades more gradually",
            None if gentler.sign == 0 else gentler.sign > 0,
            f"at {first:g} inner steps replacement has {gentler} points more",
        ),
    ]
    for method in ("separate tail", "Reptile"):
        its = lines[f"{method}, cycling"]
        change = difference(its[REPEATED], its[max(its)])
        found.append(
            Finding(
                f"{method} keeps its accuracy with more inner steps",
                change.sign >= 0,
                f"from {REPEATED} to {max(its):g} inner steps {change} points",
            )
        )
    its = sizes["shared tail, cycling"]
    larger = difference(its[usual("inner_batch")], its[max(its)])
    found.append(
        Finding(
            "a shared tail suffers from larger mini-batches, too, that must overlap",
            None if larger.sign == 0 else larger.sign < 0,
            f"from {usual('inner_batch'):g} to {max(its):g} images {larger} points",
        )
    )
    return found


def sweep(reproduced: Reproduced, swept: str) -> dict[str, dict[float, Spread]]:
    """Of a swept setting: for every line of the figure the measure by the setting's value, ascending."""
    lines: dict[str, dict[float, Spread]] = {}
    for taken, cell, spread in reproduced.spreads():
        if (cell.measure, cell.split) != _where(reproduced):
            continue
        others = [name for name in ("inner_steps", "inner_batch", "outer_step_size") if name != swept]
        if all(setting_of(taken.config, name) == usual(name) for name in others):
            lines.setdefault(taken.label, {})[setting_of(taken.config, swept)] = spread
    return {label: dict(sorted(its.items())) for label, its in lines.items()}


def _waves(reproduced: Reproduced) -> list[Finding]:
    by_arm: dict[str, Mapping[str, Spread]] = {}
    for taken, cell, spread in reproduced.spreads():
        by_arm.setdefault(taken.arm, {})
        by_arm[taken.arm] = {**by_arm[taken.arm], cell.measure: spread}
    if not {"reptile", "joint"} <= by_arm.keys():
        return []
    learned, joint = by_arm["reptile"], by_arm["joint"]
    times = learned["mse_before"].mean / learned["mse"].mean
    zero = joint["mse_before"].mean / learned["mse_before"].mean
    left = joint["mse"].mean / joint["mse_before"].mean
    return [
        Finding(
            "32 steps from Reptile's weights fit a wave",
            times > 10,
            f"they divide the error by {times:.0f}",
        ),
        Finding(
            "joint training learns the zero function, from which 32 steps fit nothing",
            0.9 < zero < 1.1 and left > 0.5,
            f"after 32 steps {100 * left:.0f}% of the error is left",
        ),
    ]


_OF_KIND: dict[Kind, Callable[[Reproduced], list[Finding]]] = {
    "combinations": _combinations,
    "overlap": _overlap,
    "waves": _waves,
}
