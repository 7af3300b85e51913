"""What the papers found, and whether it holds here: each as differences between arms with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torchreptile.data.sines import AMPLITUDES
from torchreptile.reproduce.experiment import Kind
from torchreptile.reproduce.overlap import SWEEPS, setting_of, usual
from torchreptile.reproduce.reproduced import Reproduced, Spread

COMPARED = "non_transductive"  # the measure that findings are about
LITTLE = 0.05  # a difference in accuracy that is "slight", or none that matters
REPEATED = 4.0  # mini-batches of 25 before cycling through 100 images repeats one
TIMES = 10.0  # smaller an error must get for a fit
NEAR = 0.05  # of the error of predicting zero: as near to it as makes no matter
# The mean square of a sin(x + b) with b uniform over a whole period: what predicting zero costs.
ZERO_ERROR = (AMPLITUDES[1] ** 3 - AMPLITUDES[0] ** 3) / (3 * (AMPLITUDES[1] - AMPLITUDES[0])) / 2


@dataclass(frozen=True)
class Finding:
    """Something a paper says, or that is seen here beside it.

    Attributes:
        what: it is.
        holds: whether it is so here; None where that is within what chance makes.
        numbers: that the verdict goes by.
        published: whether a paper says so.
    """

    what: str
    holds: bool | None
    numbers: str
    published: bool = True

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


def difference(one: Spread, other: Spread) -> Difference:
    """How much more ``other`` has than ``one``."""
    return Difference(other.mean - one.mean, math.hypot(one.margin, other.margin))


def findings(reproduced: Reproduced, kind: Kind) -> list[Finding]:
    """What can be said of an experiment of that kind; of arms that were not carried out nothing."""
    return _OF_KIND[kind](reproduced) if kind in _OF_KIND and reproduced.taken else []


def _by_arm(reproduced: Reproduced, measure: str) -> dict[str, Spread]:
    where = (measure, reproduced.split)
    return {taken.arm: its for taken, cell, its in reproduced.spreads() if (cell.measure, cell.split) == where}


def _combinations(reproduced: Reproduced) -> list[Finding]:
    by_arm = _by_arm(reproduced, COMPARED)
    if not {"last-of-1", *(f"{what}-of-{k}" for what in ("last", "mean", "sum") for k in (2, 3, 4))} <= by_arm.keys():
        return []
    ahead = [difference(by_arm["last-of-1"], its) for arm, its in by_arm.items() if arm != "last-of-1"]
    nearest = min(ahead, key=lambda its: its.value)
    slightly = difference(by_arm["sum-of-2"], by_arm["last-of-2"])
    further = [difference(by_arm[f"sum-of-{k}"], by_arm[f"sum-of-{k + 1}"]) for k in (2, 3)]
    sums = [difference(by_arm[f"mean-of-{k}"], by_arm[f"sum-of-{k}"]) for k in (2, 3, 4)]
    return [
        Finding(
            f"g1 alone learns little: everything else is more than {100 * LITTLE:g} points ahead",
            _all([Difference(its.value - LITTLE, its.margin).more for its in ahead]),
            f"the nearest is ahead by {nearest} points",
        ),
        Finding(
            f"g1 + g2 is slightly below g2 (first-order MAML), by less than {100 * LITTLE:g} points",
            None if slightly.more is None else slightly.more and slightly.value < LITTLE,
            f"g2 has {slightly} points more",
        ),
        Finding(
            "sums improve with each further gradient",
            _all([its.more for its in further]),
            f"the third adds {further[0]} points, the fourth {further[1]}",
        ),
        Finding(
            "a sum is ahead of its mean, which takes smaller steps",
            _all([its.more for its in sums]),
            "of two, three and four gradients by " + ", ".join(str(its) for its in sums) + " points",
            published=False,
        ),
    ]


def _all(verdicts: list[bool | None]) -> bool | None:
    """Whether all hold; None where none fails and some cannot be told."""
    return False if False in verdicts else None if None in verdicts else True


def _not(verdict: bool | None) -> bool | None:
    return None if verdict is None else not verdict


def _overlap(reproduced: Reproduced) -> list[Finding]:
    steps, sizes = sweep(reproduced, "inner_steps"), sweep(reproduced, "inner_batch")
    wanted = {f"{method}, cycling" for method in ("shared tail", "separate tail", "Reptile")}
    wanted.add("shared tail, replacement")
    if not all(_whole(steps.get(line, {}), "inner_steps") for line in wanted):
        return []
    shared, gradual, most = steps["shared tail, cycling"], steps["shared tail, replacement"], max(SWEEPS["inner_steps"])
    first = min(value for value in SWEEPS["inner_steps"] if value > REPEATED)
    drop, gentler = difference(shared[REPEATED], shared[first]), difference(shared[first], gradual[first])
    found = [
        Finding(
            "a shared tail with cycling falls once its last mini-batch was seen before",
            _not(drop.more),
            f"from {REPEATED:g} to {first:g} inner steps {drop} points",
        ),
        Finding(
            "with replacement it degrades more gradually",
            gentler.more,
            f"at {first:g} inner steps replacement has {gentler} points more",
        ),
    ]
    for method in ("separate tail", "Reptile"):
        its = steps[f"{method}, cycling"]
        change = difference(its[REPEATED], its[most])
        found.append(
            Finding(
                f"{method}: more inner steps do no harm, but for {100 * LITTLE:g} points",
                change.none_that_matters,
                f"from {REPEATED:g} to {most:g} inner steps {change} points",
            )
        )
    if _whole(line := sizes.get("shared tail, cycling", {}), "inner_batch"):
        larger = difference(line[usual("inner_batch")], line[max(line)])
        found.append(
            Finding(
                "a shared tail with cycling falls with larger mini-batches, too, which must overlap",
                _not(larger.more),
                f"from {usual('inner_batch'):g} to {max(line):g} images {larger} points",
            )
        )
    return found


def _whole(line: dict[float, Spread], swept: str) -> bool:
    return set(SWEEPS[swept]) <= line.keys()


def sweep(reproduced: Reproduced, swept: str) -> dict[str, dict[float, Spread]]:
    """Of a swept setting: for every line of the figure the measure by the setting's value, ascending."""
    lines: dict[str, dict[float, Spread]] = {}
    for taken, cell, spread in reproduced.spreads():
        if (cell.measure, cell.split) != (COMPARED, reproduced.split):
            continue
        if all(setting_of(taken.config, name) == usual(name) for name in SWEEPS if name != swept):
            lines.setdefault(taken.label, {})[setting_of(taken.config, swept)] = spread
    return {label: dict(sorted(its.items())) for label, its in lines.items()}


def _waves(reproduced: Reproduced) -> list[Finding]:
    before, after = _by_arm(reproduced, "mse_before"), _by_arm(reproduced, "mse")
    if not {"reptile", "joint"} <= after.keys():
        return []
    learned, joint, left = after["reptile"], before["joint"], after["joint"]
    fitted = _above(_times(before["reptile"], 1 / TIMES), learned)
    costs = f"{joint.mean:.2f} ± {joint.margin:.2f}; predicting zero costs {ZERO_ERROR:.2f}"
    close = joint.margin <= NEAR * ZERO_ERROR  # enough to tell whether it is zero
    return [
        Finding(
            "32 steps from Reptile's weights fit a wave",
            fitted,
            f"the error falls from {before['reptile'].mean:.2f} to {learned.mean:.2g} ± {learned.margin:.1g}",
        ),
        Finding(
            "joint training learns the zero function",
            abs(joint.mean - ZERO_ERROR) <= joint.margin + NEAR * ZERO_ERROR if close else None,
            f"its error before adaptation is {costs}",
        ),
        Finding(
            "from there 32 steps leave most of the error",
            _above(left, _times(joint, 1 / 2)),
            f"{100 * left.mean / joint.mean:.0f}% of it is left",
            published=False,
        ),
    ]


def _times(spread: Spread, factor: float) -> Spread:
    between = None if spread.between is None else factor * spread.between
    return Spread(factor * spread.mean, factor * spread.ci95, between, spread.seeds)


def _above(one: Spread, other: Spread) -> bool | None:
    """Whether ``one`` is larger; None where it cannot be told."""
    return difference(other, one).more


_OF_KIND: dict[Kind, Callable[[Reproduced], list[Finding]]] = {
    "combinations": _combinations,
    "overlap": _overlap,
    "waves": _waves,
}
