"""Results of an evaluation: accuracies of classifiers or errors of function fits, each a mean with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor

from torchreptile.core.json_text import number_from
from torchreptile.core.sealed_json import require_numbers
from torchreptile.training.evaluation.html_table import html_table
from torchreptile.training.evaluation.labels import ERRORS, MODES, label_of

DIVERGED = "diverged"
"""Shown in place of a number that is not finite."""


@dataclass(frozen=True)
class Mean:
    """A mean over episodes.

    Attributes:
        mean: the mean; NaN where an error is not a finite number.
        ci95: half the width of its 95% confidence interval over episodes.
        episodes: number of episodes.
    """

    mean: float
    ci95: float
    episodes: int
    largest: ClassVar[float] = math.inf  # that a mean can be

    @classmethod
    def over(cls, per_episode: Tensor) -> Self:
        """Return the mean of (episodes,) values; the interval is 1.96 sample standard deviations / sqrt(episodes)."""
        n = len(per_episode)
        mean, ci95 = float(per_episode.mean()), 1.96 * float(per_episode.std()) / math.sqrt(n)
        return cls(mean, ci95, n) if math.isfinite(mean + ci95) else cls(math.nan, math.nan, n)

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Self:
        """Return the mean whose fields JSON holds, null for numbers that are not finite."""
        mean, ci95 = number_from(content["mean"]), number_from(content["ci95"])
        require_numbers({"mean": mean}, high=cls.largest)
        require_numbers({"ci95": ci95})
        require_numbers({"episodes": content["episodes"]}, low=1, whole=True)
        return cls(**content | {"mean": mean, "ci95": ci95})


@dataclass(frozen=True)
class Accuracy(Mean):
    """The share of correct predictions, from 0 to 1.

    Example:
        >>> print(Accuracy(0.9768, 0.0009, 10_000))
        97.68% ± 0.09
    """

    largest: ClassVar[float] = 1.0

    def __str__(self) -> str:
        """Return the mean and its interval in percent."""
        if not math.isfinite(self.mean):
            return DIVERGED
        return f"{100 * self.mean:.2f}% ± {100 * self.ci95:.2f}"


@dataclass(frozen=True)
class SquaredError(Mean):
    """The squared error, averaged over the query points and targets of an episode.

    Example:
        >>> print(SquaredError(0.02134, 0.00112, 1_000))
        0.0213 ± 0.0011
    """

    def __str__(self) -> str:
        """Return the mean and its interval, with two significant digits of the interval."""
        if not math.isfinite(self.mean):
            return DIVERGED
        if not self.ci95 > 0:
            return f"{self.mean:.4g} ± {self.ci95:.2g}"
        digits = max(0, 1 - math.floor(math.log10(self.ci95)))
        return f"{self.mean:.{digits}f} ± {self.ci95:.{digits}f}"


class Displayed:
    """A result that shows its measures on one line, and as a table in Jupyter."""

    def rows(self) -> Mapping[str, object]:
        """Return the rows of a table by name, None for a measure that does not apply."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return all measures on one line."""
        return f"{type(self).__name__}({self})"

    def _repr_html_(self) -> str:
        """Return a table for Jupyter."""
        return html_table({label_of(name).name: its for name, its in self.rows().items() if its is not None})


@dataclass(frozen=True, repr=False)
class Result(Displayed):
    """Accuracies of a classifier in both modes, over the same episodes and adapted once.

    Attributes:
        transductive: all queries of an episode in one batch; None for algorithms that label each query alone in
            either mode.
        inductive: each query alone.
        extra_metrics: the algorithm's extra metrics by name, measured on separate episodes.
        diverged: episodes in which a prediction was not a finite number; such a prediction counts as wrong.

    Example:
        >>> print(Result(Accuracy(0.9768, 0.0004, 10_000), Accuracy(0.9539, 0.0009, 10_000)))
        97.68% ± 0.04 transductive, 95.39% ± 0.09 inductive
    """

    transductive: Accuracy | None
    inductive: Accuracy
    extra_metrics: dict[str, Accuracy] = field(default_factory=dict)
    diverged: int = 0
    measure: ClassVar[str] = "accuracy"

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return self.inductive.episodes

    def selected(self, transductive: bool) -> Accuracy:
        """Return the accuracy of one mode; the inductive one if there is no transductive one."""
        return self.transductive if transductive and self.transductive is not None else self.inductive

    def score(self, transductive: bool) -> float:
        """Return the number that is highest for the best checkpoint."""
        return self.selected(transductive).mean

    def by_mode(self, mode: str) -> Accuracy | None:
        """Return the accuracy of one of ``MODES``, or None where the mode does not apply."""
        return self.transductive if mode == "transductive" else self.inductive

    def rows(self) -> dict[str, Accuracy | None]:
        """Return the rows of a table: both modes, None where one does not apply, then the extra metrics."""
        return {mode: self.by_mode(mode) for mode in MODES} | self.extra_metrics

    def measures(self) -> dict[str, Accuracy]:
        """Return all measures by name: the modes that apply, then the extra metrics."""
        return {mode: accuracy for mode in MODES if (accuracy := self.by_mode(mode))} | self.extra_metrics

    def short(self) -> str:
        """Return the text for a live progress line."""
        text = f"{self.inductive}" if self.transductive is None else f"{self.transductive} transductive"
        return text + _divergence(self)

    def __str__(self) -> str:
        """Return all measures on one line."""
        modes = [f"{accuracy} {mode}" for mode in MODES if (accuracy := self.by_mode(mode))]
        both = [f"{self.inductive}"] if self.transductive is None else modes
        return ", ".join([*both, *(f"{name} {its}" for name, its in self.extra_metrics.items())]) + _divergence(self)


@dataclass(frozen=True, repr=False)
class Fit(Displayed):
    """Squared errors of fitted functions before and after adaptation, over the same episodes.

    Attributes:
        mse: mean squared error of the queries after adaptation; standardised where the targets of a table are.
        mse_before: mean squared error of the meta-learned weights without adaptation.
        own_mse: the error after adaptation in the squared units of the table; None where nothing was standardised.
        own_mse_before: the error before adaptation, likewise.
        diverged: episodes in which an error was not a finite number.
    """

    mse: SquaredError
    mse_before: SquaredError
    own_mse: SquaredError | None = None
    own_mse_before: SquaredError | None = None
    diverged: int = 0
    measure: ClassVar[str] = "mean squared error"

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return self.mse.episodes

    def score(self, transductive: bool) -> float:
        """Return the number that is highest for the best checkpoint: minus the error, whatever the mode."""
        return -self.mse.mean

    def measures(self) -> dict[str, SquaredError]:
        """Return all errors by name."""
        errors = (self.mse, self.mse_before, self.own_mse, self.own_mse_before)
        return {name: error for name, error in zip(ERRORS, errors, strict=True) if error is not None}

    def rows(self) -> dict[str, SquaredError | None]:
        """Return the rows of a table: all errors by name."""
        return dict(self.measures())

    def short(self) -> str:
        """Return the text for a live progress line."""
        return f"mse {self.mse}{_divergence(self)}"

    def __str__(self) -> str:
        """Return the errors after and before adaptation on one line."""
        return f"mse {self.mse}, {label_of('mse_before').name} {self.mse_before}{_divergence(self)}"


Measured = Result | Fit


def _divergence(result: Measured) -> str:
    """The end of a line: in how many episodes predictions were not finite; empty for none."""
    return f", {DIVERGED} in {result.diverged:,} of {result.episodes:,} episodes" if result.diverged else ""


def measured_from(content: dict[str, Any]) -> Measured:
    """Return the result that ``dataclasses.asdict`` turned into ``content``.

    Raises:
        ValueError, LookupError, TypeError: it is not such content, or a number is out of its range.
    """
    diverged = content.get("diverged", 0)
    require_numbers({"diverged": diverged}, whole=True)
    if "mse" in content:
        errors = {name: its for name, its in content.items() if name != "diverged" and its is not None}
        return Fit(**{name: SquaredError.from_content(its) for name, its in errors.items()}, diverged=diverged)
    transductive = content["transductive"]
    return Result(
        None if transductive is None else Accuracy.from_content(transductive),
        Accuracy.from_content(content["inductive"]),
        {name: Accuracy.from_content(accuracy) for name, accuracy in content.get("extra_metrics", {}).items()},
        diverged,
    )
