"""The rows of the papers' tables as experiments: for every published cell, the training and the evaluation behind it.

Reptile's training does not depend on the evaluation's shots, so one training gives all columns of a row; algorithms
that are trained with the shots they are tested with need one training per column.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.config.algorithm_table import all_rows
from torchreptile.core.config.presets import preset
from torchreptile.experiments.reproduce.experiment import Arm, Experiment, Measurement
from torchreptile.training.evaluation.published import published_cells

FINE_TUNED = " fine-tuned"
PUBLISHED = published_cells()
FORMS: dict[str, Mapping[str, Any]] = {
    f"{row.name} {form}": made_by.settings for row in all_rows() for form, made_by in row.forms.items()
}
TITLES = {row.name: row.title for row in all_rows()} | {
    f"{row.name} {form}": made_by.title for row in all_rows() for form, made_by in row.forms.items()
}
DATASETS = {"omniglot": "Omniglot", "mini-imagenet": "mini-ImageNet"}


def _rows() -> list[Experiment]:
    """Return an experiment for every variant, data set and way in :data:`PUBLISHED`, in its order."""
    rows: dict[tuple[str, str, int], dict[tuple[int, str], None]] = {}
    for variant, dataset, way, shots, _ in PUBLISHED:
        trained = variant.removesuffix(FINE_TUNED)  # fine-tuning changes only the evaluation
        rows.setdefault((trained, dataset, way), {})[shots, variant] = None
    return [_row(*row, sorted(cells)) for row, cells in rows.items()]


def _row(variant: str, dataset: str, way: int, cells: Sequence[tuple[int, str]]) -> Experiment:
    """Return the experiment for one row, whose cells are (shots, variant) pairs."""
    algorithm = variant.partition(" ")[0]
    arms: list[Arm] = []
    for shots, form in cells:
        config = preset(f"{dataset}-{shots}shot-{way}way", algorithm).replace(**FORMS.get(form, {}))
        if arms and _trained_alike(arms[-1].config, config):
            arms[-1] = replace(arms[-1], measurements=(*arms[-1].measurements, Measurement.of(config)))
        else:
            arms.append(Arm.of(f"{algorithm}-{shots}shot", TITLES[variant], config))
    if len(arms) == 1:
        arms = [replace(arms[0], name=algorithm)]
    variants = {form for _, form in cells}
    sources = dict.fromkeys(
        cell.source for (form, *task, _, _), cell in PUBLISHED.items() if form in variants and task == [dataset, way]
    )
    plain = f"{dataset}-{way}way"
    also = ", without and with fine-tuning" if len(variants) > 1 else ""
    return Experiment(
        name=plain if variant == "reptile" else f"{variant.lower().replace(' ', '-')}-{plain}",
        what=f"{TITLES[variant]}{also} on {DATASETS[dataset]}, {way}-way, "
        + " and ".join(str(shots) for shots in dict.fromkeys(shots for shots, _ in cells))
        + "-shot",
        source="; ".join(sources),
        kind="row",
        arms=tuple(arms),
    )


def _trained_alike(one: Config, other: Config) -> bool:
    """Return whether two settings differ only in the evaluation."""
    if one.task.images_per_class != other.task.images_per_class:
        return False
    return one.replace(shots=other.task.shots, **dataclasses.asdict(other.evaluation)) == other


ROWS = _rows()
