"""What a measurement came to: accuracies of classifiers, errors of functions; each a mean with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor

MODES = ("transductive", "inductive")
IN_SHORT = dict(zip(MODES, ("transductive", "not"), strict=True))
"""The same where there is little room."""
ERRORS = {
    "mse": "after adaptation",
    "mse_before": "before adaptation",
    "own_mse": "after, in the table's units",
    "own_mse_before": "before, in the table's units",
}
"""The measures of a :class:`Fit`, and what they are called."""


@dataclass(frozen=True)
class Mean:
    """A mean over episodes.

    Attributes:
        mean: of a measure.
        ci95: half the width of the 95% confidence interval of the mean, over episodes.
        episodes: how many.
    """

    mean: float
    ci95: float
    episodes: int

    @classmethod
    def over(cls, per_episode: Tensor) -> Self:
        """From (episodes,) measures; normal approximation, sample standard deviation."""
        n = len(per_episode)
        return cls(float(per_episode.mean()), 1.96 * float(per_episode.std()) / math.sqrt(n), n)


@dataclass(frozen=True)
class Accuracy(Mean):
    """The share of right answers, from 0 to 1."""

    def __str__(self) -> str:
        """For people: ``97.68% +- 0.09``."""
        return f"{100 * self.mean:.2f}% ± {100 * self.ci95:.2f}"


@dataclass(frozen=True)
class SquaredError(Mean):
    """The squared error, averaged over an episode's query points and targets."""

    def __str__(self) -> str:
        """For people: ``0.0213 +- 0.0011``; of small ones, as many digits as the interval bears out."""
        if not (math.isfinite(self.ci95) and self.ci95 > 0):
            return f"{self.mean:.4g} ± {self.ci95:.2g}"
        digits = max(0, 1 - math.floor(math.log10(self.ci95)))
        return f"{self.mean:.{digits}f} ± {self.ci95:.{digits}f}"


@dataclass(frozen=True)
class Result:
    """Both accuracies over the same episodes, adapted once.

    Attributes:
        transductive: None for algorithms whose queries in one batch are labelled as each alone.
        inductive: each query alone.
        further: what the algorithm measures beside these, by name, on episodes of its own.
    """

    transductive: Accuracy | None
    inductive: Accuracy
    further: dict[str, Accuracy] = field(default_factory=dict)
    measure: ClassVar[str] = "accuracy"

    @property
    def episodes(self) -> int:
        """How many."""
        return self.inductive.episodes

    def selected(self, transductive: bool) -> Accuracy:
        """The one or the other; where there is but one, that one."""
        return self.transductive if transductive and self.transductive is not None else self.inductive

    def score(self, transductive: bool) -> float:
        """What the best checkpoint has most of."""
        return self.selected(transductive).mean

    def by_mode(self, mode: str) -> Accuracy | None:
        """One of MODES; None where it does not apply."""
        return self.transductive if mode == "transductive" else self.inductive

    def rows(self) -> dict[str, Accuracy | None]:
        """What a table shows: MODES, None where one does not apply, then the further measures."""
        return {mode: self.by_mode(mode) for mode in MODES} | self.further

    def measures(self) -> dict[str, Accuracy]:
        """All there are, by name: those of MODES that apply, then the further ones."""
        return {mode: accuracy for mode in MODES if (accuracy := self.by_mode(mode))} | self.further

    def short(self) -> str:
        """What the live line shows."""
        return f"{self.inductive}" if self.transductive is None else f"{self.transductive} transductive"

    def __str__(self) -> str:
        """What a line that stays says."""
        both = self.short() if self.transductive is None else f"{self.short()}, {self.inductive} not"
        return both + "".join(f", {what} {its}" for what, its in self.further.items())


@dataclass(frozen=True)
class Fit:
    """Errors of functions over the same episodes: how well they are fitted before and after adaptation.

    Attributes:
        mse: mean squared error of the queries after adaptation; of tables, of standardised targets.
        mse_before: by the weights as they were meta-learned.
        own_mse, own_mse_before: the same of a table, in the squares of its own units; None for what has no others.
    """

    mse: SquaredError
    mse_before: SquaredError
    own_mse: SquaredError | None = None
    own_mse_before: SquaredError | None = None
    measure: ClassVar[str] = "mean squared error"

    @property
    def episodes(self) -> int:
        """How many."""
        return self.mse.episodes

    def score(self, transductive: bool) -> float:
        """What the best checkpoint has most of: the error, below zero."""
        return -self.mse.mean

    def measures(self) -> dict[str, SquaredError]:
        """All there are, by name."""
        errors = (self.mse, self.mse_before, self.own_mse, self.own_mse_before)
        return {name: error for name, error in zip(ERRORS, errors, strict=True) if error is not None}

    def rows(self) -> dict[str, SquaredError | None]:
        """What a table shows: all there are."""
        return dict(self.measures())

    def short(self) -> str:
        """What the live line shows."""
        return f"mse {self.mse}"

    def __str__(self) -> str:
        """What a line that stays says."""
        return f"{self.short()}, before adaptation {self.mse_before}"


Measured = Result | Fit


def measured_from(content: dict[str, Any]) -> Measured:
    """From JSON; results of earlier versions have no further measures."""
    if "mse" in content:
        errors = {name: SquaredError(**its) for name, its in content.items() if its is not None}
        return Fit(**errors)
    transductive, further = content["transductive"], content.get("further", {})
    return Result(
        None if transductive is None else Accuracy(**transductive),
        Accuracy(**content["inductive"]),
        {name: Accuracy(**accuracy) for name, accuracy in further.items()},
    )
