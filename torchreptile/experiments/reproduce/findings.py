"""The papers' findings and whether they hold here, judged by differences between arms with their uncertainty."""

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

COMPARED = "inductive"  # the mode that findings refer to
Lines = dict[str, dict[float, Spread]]
FIT_FACTOR = 10.0  # a wave counts as fitted if its error falls by this factor
NEAR_ZERO = 0.01 * AMPLITUDES[1]  # an output of at most this root mean square counts as the zero function
# The mean square of a sin(x + b) with b uniform over a full period: the error of predicting zero.
ZERO_ERROR = (AMPLITUDES[1] ** 3 - AMPLITUDES[0] ** 3) / (3 * (AMPLITUDES[1] - AMPLITUDES[0])) / 2


@dataclass(frozen=True)
class Finding:
    """A statement about an experiment, and whether it holds for the trainings measured here.

    Attributes:
        what: the statement.
        holds: whether it holds here; None if the difference is within its uncertainty.
        numbers: the numbers that decide it.
        published: whether a paper makes the statement; otherwise it is an observation of our own.
    """

    what: str
    holds: bool | None
    numbers: str
    published: bool = True

    @property
    def verdict(self) -> str:
        """Outcome in words."""
        return {True: "holds", False: "does not hold", None: "inconclusive"}[self.holds]


def findings(reproduced: Reproduced, experiment: Experiment) -> list[Finding]:
    """Return the findings of an experiment; none until all its trainings are finished."""
    if experiment.kind not in _OF_KIND or reproduced.missing(experiment):
        return []
    measured = by_arm(reproduced, "mse" if experiment.kind == "waves" else COMPARED)
    # All trainings may have been evaluated on one split, and only some of them on this one.
    return _OF_KIND[experiment.kind](reproduced) if len(measured) == len(experiment.arms) else []


def _combinations(reproduced: Reproduced) -> list[Finding]:
    """Return the findings on combinations of inner gradients."""
    arms, kinds = by_arm(reproduced, COMPARED), ("last", "mean", "sum")
    ahead = [difference(arms["last-of-1"], lead) for arm, lead in arms.items() if arm != "last-of-1"]
    nearest = min(ahead, key=lambda lead: lead.value)
    two = difference(arms["sum-of-2"], arms["last-of-2"])
    gains = {kind: difference(arms[f"{kind}-of-2"], arms[f"{kind}-of-4"]) for kind in kinds}
    each_adds = [difference(arms[f"sum-of-{k}"], arms[f"sum-of-{k + 1}"]) for k in (2, 3)]
    more = contrast((1, arms["sum-of-4"]), (-1, arms["sum-of-2"]), (-1, arms["last-of-4"]), (1, arms["last-of-2"]))
    sums = [difference(arms[f"mean-of-{k}"], arms[f"sum-of-{k}"]) for k in (2, 3, 4)]
    return [
        Finding(
            f"g1 alone learns little: every other combination is more than {100 * LITTLE:g} points ahead",
            _all([Difference(lead.value - LITTLE, lead.margin).more for lead in ahead]),
            f"the closest is ahead by {nearest} points",
        ),
        Finding(
            "g1 + g2 (two steps of Reptile) is below g2 (first-order MAML)",
            two.more,
            f"g2 is ahead by {two} points",
        ),
        Finding(
            "every kind of combination improves with the number of gradients",
            _all([gain.more for gain in gains.values()]),
            "from two to four gradients, "
            + ", ".join(f"the {kind} by {gain}" for kind, gain in gains.items())
            + " points",
        ),
        Finding(
            "the sum improves with every added gradient",
            _all([gain.more for gain in each_adds]),
            f"the third adds {each_adds[0]} points, the fourth {each_adds[1]}",
        ),
        Finding(
            "the sum gains more from added gradients than the last gradient alone does",
            more.more,
            f"{more} points more from two to four",
        ),
        Finding(
            "a sum is ahead of its mean, which takes smaller steps",
            _all([lead.more for lead in sums]),
            "for two, three and four gradients by " + ", ".join(str(lead) for lead in sums) + " points",
            published=False,
        ),
    ]


def _all(verdicts: list[bool | None]) -> bool | None:
    """Return whether all verdicts hold; None if none fails but some are inconclusive."""
    return False if False in verdicts else None if None in verdicts else True


def _not(verdict: bool | None) -> bool | None:
    """Negate a verdict; an inconclusive one stays inconclusive."""
    return None if verdict is None else not verdict


def _overlap(reproduced: Reproduced) -> list[Finding]:
    """Return the findings on overlapping mini-batches."""
    by_steps, by_batch = sweep(reproduced, "inner_steps"), sweep(reproduced, "inner_batch")
    return [
        *_with_repeated_images(by_steps, "inner steps", usual("inner_steps")),
        *_with_repeated_images(by_batch, "images in a mini-batch", usual("inner_batch")),
        _with_larger_steps(by_batch[SHARED][usual("inner_batch")], sweep(reproduced, "outer_step_size")[SHARED]),
        _separate_tail(by_steps),
    ]


def _with_repeated_images(lines: Lines, what: str, last: float) -> list[Finding]:
    """Compare the value ``last``, at which cycling shows every image once, with larger ones, which repeat images."""
    replaced = lines["shared tail, replacement"]
    first = min(value for value in lines[SHARED] if value > last)
    between, drop = f"from {last:g} to {first:g} {what}", difference(lines[SHARED][last], lines[SHARED][first])
    gentler = contrast(
        (1, replaced[first]), (-1, replaced[last]), (-1, lines[SHARED][first]), (1, lines[SHARED][last])
    )  # fmt: skip
    found = [
        Finding(
            f"a shared tail with cycling gets worse once its last mini-batch repeats images: {what}",
            _not(drop.more),
            f"{between} {drop} points",
        ),
        Finding(f"with replacement it loses less: {what}", gentler.more, f"{between} {gentler} points less"),
    ]
    for line in ("separate tail, cycling", "Reptile, cycling"):
        far = max(lines[line])
        change = difference(lines[line][last], lines[line][far])
        found.append(
            Finding(
                f"{line}: more {what} cost at most {100 * LITTLE:g} points",
                change.at_most_little_less,
                f"from {last:g} to {far:g} {what} {change} points",
            )
        )
    return found


def _with_larger_steps(fresh: Spread, repeated: dict[float, Spread]) -> Finding:
    """Compare a last mini-batch of new images with one that repeats all images, at every outer step size."""
    missing = {size: difference(spread, fresh) for size, spread in repeated.items()}
    best = min(missing, key=lambda size: missing[size].value)
    return Finding(
        "no outer step size makes up for it",
        _all([gap.more for gap in missing.values()]),
        f"with mini-batches of {IMAGES} images the best step size, {best:g}, trails mini-batches of "
        f"{usual('inner_batch'):g} by {missing[best]} points",
    )


def _separate_tail(by_steps: Lines) -> Finding:
    """Compare a separate and a shared tail at the largest number of inner steps."""
    most = max(SWEEPS["inner_steps"])
    lead = difference(by_steps[SHARED][most], by_steps["separate tail, cycling"][most])
    return Finding(
        "a separate tail is then ahead of a shared one",
        lead.more,
        f"with cycling at {most:g} inner steps by {lead} points",
    )


def sweep(reproduced: Reproduced, swept: str) -> Lines:
    """Return the results of a sweep: for each line of the figure, the results by value of the setting, ascending."""
    lines: Lines = {}
    for trained, _, spread in chosen(reproduced, COMPARED):
        if belongs(trained.config, swept) and ALONE.get(swept, trained.label) == trained.label:
            lines.setdefault(trained.label, {})[setting_of(trained.config, swept)] = spread
    return {label: dict(sorted(line.items())) for label, line in lines.items()}


def _waves(reproduced: Reproduced) -> list[Finding]:
    """Return the findings on sine waves."""
    before, after = by_arm(reproduced, "mse_before"), by_arm(reproduced, "mse")
    outputs = {arm: _output(seeds) for arm, seeds in reproduced.arms().items()}
    reptile, joint, left = after["reptile"], before["joint"], after["joint"]
    fitted = _above(_times(before["reptile"], 1 / FIT_FACTOR), reptile)
    others = ", ".join(
        f"{seeds[0].label} {outputs[arm]:.2g}" for arm, seeds in reproduced.arms().items() if arm != "joint"
    )
    return [
        Finding(
            "32 steps from Reptile's weights fit a wave",
            fitted,
            f"the error falls from {before['reptile'].mean:.2f} to {reptile.mean:.2g} ± {reptile.margin:.1g}",
        ),
        Finding(
            "joint training learns the zero function",
            outputs["joint"] <= NEAR_ZERO,
            f"the root mean square of its output before adaptation is {outputs['joint']:.2g} ({others}); its error "
            f"is {joint.mean:.2f} ± {joint.margin:.2f}, that of predicting zero {ZERO_ERROR:.2f}",
        ),
        Finding(
            "from there 32 steps leave most of the error",
            _above(left, _times(joint, 1 / 2)),
            f"{100 * left.mean / joint.mean:.0f}% of it remains",
            published=False,
        ),
    ]


def _output(trained: list[TrainedArm]) -> float:
    """Return the root mean square of the network's output before adaptation."""
    return math.sqrt(statistics.fmean(value**2 for seed in trained for wave in seed.waves for value in wave.before))


def _times(spread: Spread, factor: float) -> Spread:
    """Multiply a result by a factor."""
    by_seed = {seed: factor * mean for seed, mean in spread.by_seed.items()}
    return replace(spread, mean=factor * spread.mean, ci95=factor * spread.ci95, by_seed=by_seed)


def _above(one: Spread, other: Spread) -> bool | None:
    """Return whether ``one`` is larger than ``other``; None if the difference is within its uncertainty."""
    return difference(other, one).more


_OF_KIND: dict[Kind, Callable[[Reproduced], list[Finding]]] = {
    "combinations": _combinations,
    "overlap": _overlap,
    "waves": _waves,
}
