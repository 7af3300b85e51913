"""Published accuracies of all algorithms, from the rows of the algorithm table."""

from __future__ import annotations

from torchreptile.core.config.algorithm import Published as Published
from torchreptile.core.config.algorithm_table import BUILT_IN, algorithm_row
from torchreptile.training.evaluation.labels import MODES

FIGURE_ONLY = "figure only"
"""Shown in place of a number for sine waves, because Nichol et al. 2018 and Finn et al. 2017 published only curves."""


def published_cells() -> dict[tuple[str, str, int, int, bool], Published]:
    """Return all published accuracies of the built-in algorithms, in the order of tables.

    Returns:
        By (variant, data set, way, shots, transductive); the variant is ``Config.variant``, such as ``matching FCE``.
    """
    return {
        (f"{name} {form}".strip(), dataset, way, shots, transductive): value
        for name in BUILT_IN
        for (form, dataset, way, shots, transductive), value in algorithm_row(name).published.items()
    }


def published(variant: str, dataset: str, way: int, shots: int, transductive: bool) -> Published | None:
    """Return the published accuracy of a cell, or None if there is none.

    Args:
        variant: the algorithm and its form, as ``Config.variant`` has them.
        dataset: name of the data set.
        way: classes in a task.
        shots: support images per class.
        transductive: whether all queries of an episode share one batch.

    Example:
        >>> str(published("reptile", "omniglot", 5, 1, True))
        '97.68% ± 0.04'
    """
    name, _, form = variant.partition(" ")
    return algorithm_row(name).published.get((form, dataset, way, shots, transductive))


def published_measure(variant: str, dataset: str, way: int, shots: int, measure: str) -> Published | None:
    """Return the published value of a measure, or None if there is none.

    Args:
        variant: the algorithm and its form, as ``Config.variant`` has them.
        dataset: name of the data set.
        way: classes in a task.
        shots: support images per class.
        measure: ``transductive``, ``inductive``, or an extra metric of the algorithm. Where the published number is
            that of an extra metric, the accuracies of the two modes have none.
    """
    row = algorithm_row(variant.partition(" ")[0])
    if measure in MODES:
        if shots in row.quoted:
            return None
        return published(variant, dataset, way, shots, transductive=measure == "transductive")
    return row.extra_published.get((dataset, way, measure))
