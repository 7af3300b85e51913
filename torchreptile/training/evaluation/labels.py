"""The words for the two evaluation modes and for every measure; tables, reports and pictures take them from here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """The names of one measure.

    Attributes:
        key: the name in code, in ``metrics.jsonl`` and in ``eval-*.json``.
        short: the heading of a narrow column.
        name: what tables and legends call it.
        long: how it is measured.
    """

    key: str
    short: str
    name: str
    long: str


_LABELS = {
    label.key: label
    for label in (
        Label("transductive", "transductive", "transductive", "all queries of an episode in one batch"),
        Label("inductive", "inductive", "inductive", "each query alone"),
        Label("mse", "mse", "after adaptation", "queries predicted after the inner steps"),
        Label("mse_before", "before", "before adaptation", "the same queries predicted by the meta-learned weights"),
        Label("own_mse", "own mse", "after, in the table's units", "the error after adaptation, not standardised"),
        Label("own_mse_before", "own before", "before, in the table's units", "the error before it, not standardised"),
    )
}  # fmt: skip

MODES = ("transductive", "inductive")
"""The two ways to label the queries of an episode."""
ERRORS = ("mse", "mse_before", "own_mse", "own_mse_before")
"""The measures of functions, which are squared errors."""


def label_of(measure: str) -> Label:
    """Return the names of a measure; an extra metric of an algorithm goes by its own name.

    Example:
        >>> label_of("inductive").long
        'each query alone'
        >>> label_of("presentation 2").name
        'presentation 2'
    """
    return _LABELS.get(measure) or Label(measure, measure, measure, "measured on separate episodes")
