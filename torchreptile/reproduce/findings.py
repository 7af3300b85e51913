"""What the papers found, and whether it holds here: each as differences between arms with their uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from torchreptile.data.sines import AMPLITUDES
from torchreptile.reproduce.experiment import Kind
from torchreptile.reproduce.overlap import ALONE, IMAGES, SWEEPS, belongs, points, setting_of, usual
from torchreptile.reproduce.reproduced import Cell, Reproduced, Spread, TrainedArm, between_seeds

COMPARED = "non_transductive"  # the measure that findings are about
LITTLE = 0.05  # a difference in accuracy that does not matter
TIMES = 10.0  # smaller an error must get for a fit
NEAR_ZERO = 0.01 * AMPLITUDES[1]  # a root mean square so small, beside the largest amplitude, is a zero function
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


def findings(reproduced: Reproduced, kind: Kind) -> list[Finding]:
    """What can be said of an experiment of that kind; of arms that were not carried out nothing."""
    return _OF_KIND[kind](reproduced) if kind in _OF_KIND and reproduced.trainings else []


def _chosen(reproduced: Reproduced, measure: str) -> list[tuple[TrainedArm, Spread]]:
    """Of every arm what was measured on most episodes, and of those with most seeds."""
    found: dict[str, tuple[TrainedArm, Cell, Spread]] = {}
    for row in reproduced.spreads():
        trained, cell, spread = row
        if (cell.measure, cell.split) != (measure, reproduced.split):
            continue
        before = found.get(trained.arm)
        if before is None or (cell.episodes, spread.seeds) > (before[1].episodes, before[2].seeds):
            found[trained.arm] = row
    return [(trained, spread) for trained, _, spread in found.values()]


def _by_arm(reproduced: Reproduced, measure: str) -> dict[str, Spread]:
    return {trained.arm: spread for trained, spread in _chosen(reproduced, measure)}


def _combinations(reproduced: Reproduced) -> list[Finding]:
    by_arm, kinds = _by_arm(reproduced, COMPARED), ("last", "mean", "sum")
    if not {"last-of-1", *(f"{kind}-of-{k}" for kind in kinds for k in (2, 3, 4))} <= by_arm.keys():
        return []
    ahead = [difference(by_arm["last-of-1"], lead) for arm, lead in by_arm.items() if arm != "last-of-1"]
    nearest = min(ahead, key=lambda lead: lead.value)
    two = difference(by_arm["sum-of-2"], by_arm["last-of-2"])
    gains = {kind: difference(by_arm[f"{kind}-of-2"], by_arm[f"{kind}-of-4"]) for kind in kinds}
    further = [difference(by_arm[f"sum-of-{k}"], by_arm[f"sum-of-{k + 1}"]) for k in (2, 3)]
    more = contrast(
        (1, by_arm["sum-of-4"]), (-1, by_arm["sum-of-2"]), (-1, by_arm["last-of-4"]), (1, by_arm["last-of-2"])
    )
    sums = [difference(by_arm[f"mean-of-{k}"], by_arm[f"sum-of-{k}"]) for k in (2, 3, 4)]
    return [
        Finding(
            f"g1 alone learns little: everything else is more than {100 * LITTLE:g} points ahead",
            _all([Difference(lead.value - LITTLE, lead.margin).more for lead in ahead]),
            f"the nearest is ahead by {nearest} points",
        ),
        Finding(
            "g1 + g2 (two steps of Reptile) is below g2 (of first-order MAML)",
            two.more,
            f"g2 has {two} points more",
        ),
        Finding(
            "everything improves with the number of gradients",
            _all([gain.more for gain in gains.values()]),
            "from two to four " + ", ".join(f"the {kind} by {gain}" for kind, gain in gains.items()) + " points",
        ),
        Finding(
            "the sum improves with each of them",
            _all([gain.more for gain in further]),
            f"the third adds {further[0]} points, the fourth {further[1]}",
        ),
        Finding(
            "the sum gains more from them than the last gradient does",
            more.more,
            f"{more} points more from two to four",
        ),
        Finding(
            "a sum is ahead of its mean, which takes smaller steps",
            _all([lead.more for lead in sums]),
            "of two, three and four gradients by " + ", ".join(str(lead) for lead in sums) + " points",
            published=False,
        ),
    ]


def _all(verdicts: list[bool | None]) -> bool | None:
    """Whether all hold; None where none fails and some cannot be told."""
    return False if False in verdicts else None if None in verdicts else True


def _not(verdict: bool | None) -> bool | None:
    return None if verdict is None else not verdict


def _overlap(reproduced: Reproduced) -> list[Finding]:
    by_steps, by_batch = sweep(reproduced, "inner_steps"), sweep(reproduced, "inner_batch")
    by_size = sweep(reproduced, "outer_step_size").get(ALONE["outer_step_size"], {})
    asked = points()
    if any(sweep(reproduced, swept).get(line, {}).keys() != set(values) for (swept, line), values in asked.items()):
        return []  # not all of it was carried out
    shared, replaced = "shared tail, cycling", "shared tail, replacement"
    steps, images = (usual(name) for name in ("inner_steps", "inner_batch"))
    found = []
    for lines, name, last in ((by_steps, "inner steps", steps), (by_batch, "images in a mini-batch", images)):
        # At the usual point cycling has just shown every image once; the next one repeats some.
        first = min(value for value in lines[shared] if value > last)
        drop = difference(lines[shared][last], lines[shared][first])
        gentler = contrast(
            (1, lines[replaced][first]), (-1, lines[replaced][last]),
            (-1, lines[shared][first]), (1, lines[shared][last]),
        )  # fmt: skip
        between = f"from {last:g} to {first:g} {name}"
        found += [
            Finding(
                f"a shared tail with cycling falls once its last mini-batch was seen before: {name}",
                _not(drop.more),
                f"{between} {drop} points",
            ),
            Finding(f"with replacement it falls less: {name}", gentler.more, f"{between} {gentler} points less"),
        ]
        for line in ("separate tail, cycling", "Reptile, cycling"):
            far = max(lines[line])
            change = difference(lines[line][last], lines[line][far])
            found.append(
                Finding(
                    f"{line}: more {name} cost at most {100 * LITTLE:g} points",
                    change.none_that_matters,
                    f"from {last:g} to {far:g} {name} {change} points",
                )
            )
    fresh = by_batch[shared][images]
    missing = {size: difference(spread, fresh) for size, spread in by_size.items()}
    best = min(missing, key=lambda size: missing[size].value)
    found.append(
        Finding(
            "no outer step size makes up for it",
            _all([gap.more for gap in missing.values()]),
            f"with mini-batches of {IMAGES} images the best, {best:g}, has "
            f"{missing[best]} points less than mini-batches of {images:g}",
        )
    )
    most = max(SWEEPS["inner_steps"])
    apart = difference(by_steps[shared][most], by_steps["separate tail, cycling"][most])
    found.append(
        Finding(
            "a separate tail is then ahead of a shared one",
            apart.more,
            f"with cycling at {most:g} inner steps by {apart} points",
        )
    )
    return found


def sweep(reproduced: Reproduced, swept: str) -> dict[str, dict[float, Spread]]:
    """Of a swept setting: for every line of the figure the measure by the setting's value, ascending."""
    lines: dict[str, dict[float, Spread]] = {}
    for trained, spread in _chosen(reproduced, COMPARED):
        if belongs(trained.config, swept) and ALONE.get(swept, trained.label) == trained.label:
            lines.setdefault(trained.label, {})[setting_of(trained.config, swept)] = spread
    return {label: dict(sorted(line.items())) for label, line in lines.items()}


def _waves(reproduced: Reproduced) -> list[Finding]:
    before, after = _by_arm(reproduced, "mse_before"), _by_arm(reproduced, "mse")
    outputs = {arm: _output(seeds) for arm, seeds in reproduced.arms().items()}
    if not {"reptile", "joint"} <= after.keys() or outputs["joint"] is None:
        return []
    learned, joint, left = after["reptile"], before["joint"], after["joint"]
    fitted = _above(_times(before["reptile"], 1 / TIMES), learned)
    others = ", ".join(f"{arm} {said:.2g}" for arm, said in outputs.items() if arm != "joint" and said is not None)
    return [
        Finding(
            "32 steps from Reptile's weights fit a wave",
            fitted,
            f"the error falls from {before['reptile'].mean:.2f} to {learned.mean:.2g} ± {learned.margin:.1g}",
        ),
        Finding(
            "joint training learns the zero function",
            outputs["joint"] <= NEAR_ZERO,
            f"the root mean square of what it says before adaptation is {outputs['joint']:.2g} ({others}); its error "
            f"is {joint.mean:.2f} ± {joint.margin:.2f}, and predicting zero costs {ZERO_ERROR:.2f}",
        ),
        Finding(
            "from there 32 steps leave most of the error",
            _above(left, _times(joint, 1 / 2)),
            f"{100 * left.mean / joint.mean:.0f}% of it is left",
            published=False,
        ),
    ]


def _output(trained: list[TrainedArm]) -> float | None:
    """The root mean square of what weights say before they adapt, which is of no wave; None where nothing was kept."""
    said = [value for seed in trained for wave in seed.waves for value in wave.before]
    return math.sqrt(statistics.fmean(value**2 for value in said)) if said else None


def _times(spread: Spread, factor: float) -> Spread:
    by_seed = {seed: factor * mean for seed, mean in spread.by_seed.items()}
    return Spread(factor * spread.mean, factor * spread.ci95, by_seed)


def _above(one: Spread, other: Spread) -> bool | None:
    """Whether ``one`` is larger; None where it cannot be told."""
    return difference(other, one).more


_OF_KIND: dict[Kind, Callable[[Reproduced], list[Finding]]] = {
    "combinations": _combinations,
    "overlap": _overlap,
    "waves": _waves,
}
