"""What the papers found, and whether it holds here: each as differences between arms with their uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

from torchreptile.data.functions.sine import AMPLITUDES
from torchreptile.experiments.reproduce.experiment import Experiment, Kind
from torchreptile.experiments.reproduce.minibatch_overlap import (
    ALONE,
    IMAGES,
    SHARED,
    SWEEPS,
    belongs,
    setting_of,
    usual,
)
from torchreptile.experiments.reproduce.result import Reproduced, Spread, TrainedArm
from torchreptile.experiments.reproduce.seed_statistics import LITTLE, Difference, by_arm, chosen, contrast, difference

COMPARED = "inductive"  # the measure that findings are about
Lines = dict[str, dict[float, Spread]]
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


def findings(reproduced: Reproduced, experiment: Experiment) -> list[Finding]:
    """What can be said of an experiment; nothing before all of it was carried out."""
    if experiment.kind not in _OF_KIND or reproduced.missing(experiment):
        return []
    measured = by_arm(reproduced, "mse" if experiment.kind == "waves" else COMPARED)
    # Trainings may have been measured on one split before, and not all of them on another yet.
    return _OF_KIND[experiment.kind](reproduced) if len(measured) == len(experiment.arms) else []


def _combinations(reproduced: Reproduced) -> list[Finding]:
    its, kinds = by_arm(reproduced, COMPARED), ("last", "mean", "sum")
    ahead = [difference(its["last-of-1"], lead) for arm, lead in its.items() if arm != "last-of-1"]
    nearest = min(ahead, key=lambda lead: lead.value)
    two = difference(its["sum-of-2"], its["last-of-2"])
    gains = {kind: difference(its[f"{kind}-of-2"], its[f"{kind}-of-4"]) for kind in kinds}
    further = [difference(its[f"sum-of-{k}"], its[f"sum-of-{k + 1}"]) for k in (2, 3)]
    more = contrast((1, its["sum-of-4"]), (-1, its["sum-of-2"]), (-1, its["last-of-4"]), (1, its["last-of-2"]))
    sums = [difference(its[f"mean-of-{k}"], its[f"sum-of-{k}"]) for k in (2, 3, 4)]
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
    return [
        *_once_seen(by_steps, "inner steps", usual("inner_steps")),
        *_once_seen(by_batch, "images in a mini-batch", usual("inner_batch")),
        _with_larger_steps(by_batch[SHARED][usual("inner_batch")], sweep(reproduced, "outer_step_size")[SHARED]),
        _kept_apart(by_steps),
    ]


def _once_seen(lines: Lines, what: str, last: float) -> list[Finding]:
    """At the value ``last`` cycling has just shown every image once; the next one repeats some."""
    replaced = lines["shared tail, replacement"]
    first = min(value for value in lines[SHARED] if value > last)
    between, drop = f"from {last:g} to {first:g} {what}", difference(lines[SHARED][last], lines[SHARED][first])
    gentler = contrast(
        (1, replaced[first]), (-1, replaced[last]), (-1, lines[SHARED][first]), (1, lines[SHARED][last])
    )  # fmt: skip
    found = [
        Finding(
            f"a shared tail with cycling falls once its last mini-batch was seen before: {what}",
            _not(drop.more),
            f"{between} {drop} points",
        ),
        Finding(f"with replacement it falls less: {what}", gentler.more, f"{between} {gentler} points less"),
    ]
    for line in ("separate tail, cycling", "Reptile, cycling"):
        far = max(lines[line])
        change = difference(lines[line][last], lines[line][far])
        found.append(
            Finding(
                f"{line}: more {what} cost at most {100 * LITTLE:g} points",
                change.none_that_matters,
                f"from {last:g} to {far:g} {what} {change} points",
            )
        )
    return found


def _with_larger_steps(fresh: Spread, repeated: dict[float, Spread]) -> Finding:
    """``fresh``: the last mini-batch is new; ``repeated``: it holds all images, by outer step size."""
    missing = {size: difference(spread, fresh) for size, spread in repeated.items()}
    best = min(missing, key=lambda size: missing[size].value)
    return Finding(
        "no outer step size makes up for it",
        _all([gap.more for gap in missing.values()]),
        f"with mini-batches of {IMAGES} images the best, {best:g}, has {missing[best]} points less than mini-batches "
        f"of {usual('inner_batch'):g}",
    )


def _kept_apart(by_steps: Lines) -> Finding:
    most = max(SWEEPS["inner_steps"])
    apart = difference(by_steps[SHARED][most], by_steps["separate tail, cycling"][most])
    return Finding(
        "a separate tail is then ahead of a shared one",
        apart.more,
        f"with cycling at {most:g} inner steps by {apart} points",
    )


def sweep(reproduced: Reproduced, swept: str) -> Lines:
    """Of a swept setting: for every line of the figure the measure by the setting's value, ascending."""
    lines: Lines = {}
    for trained, _, spread in chosen(reproduced, COMPARED):
        if belongs(trained.config, swept) and ALONE.get(swept, trained.label) == trained.label:
            lines.setdefault(trained.label, {})[setting_of(trained.config, swept)] = spread
    return {label: dict(sorted(line.items())) for label, line in lines.items()}


def _waves(reproduced: Reproduced) -> list[Finding]:
    before, after = by_arm(reproduced, "mse_before"), by_arm(reproduced, "mse")
    outputs = {arm: _output(seeds) for arm, seeds in reproduced.arms().items()}
    learned, joint, left = after["reptile"], before["joint"], after["joint"]
    fitted = _above(_times(before["reptile"], 1 / TIMES), learned)
    others = ", ".join(
        f"{seeds[0].label} {outputs[arm]:.2g}" for arm, seeds in reproduced.arms().items() if arm != "joint"
    )
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


def _output(trained: list[TrainedArm]) -> float:
    """The root mean square of what weights say before they adapt, which is of no wave."""
    return math.sqrt(statistics.fmean(value**2 for seed in trained for wave in seed.waves for value in wave.before))


def _times(spread: Spread, factor: float) -> Spread:
    by_seed = {seed: factor * mean for seed, mean in spread.by_seed.items()}
    return replace(spread, mean=factor * spread.mean, ci95=factor * spread.ci95, by_seed=by_seed)


def _above(one: Spread, other: Spread) -> bool | None:
    """Whether ``one`` is larger; None where it cannot be told."""
    return difference(other, one).more


_OF_KIND: dict[Kind, Callable[[Reproduced], list[Finding]]] = {
    "combinations": _combinations,
    "overlap": _overlap,
    "waves": _waves,
}
