"""The rows of the papers' tables: for every published cell the training that it comes from, and its measurement.

Shots alone change Reptile's evaluation and not its training, so one training gives both columns of a row; the
algorithms that are trained with the shots they are tested with have a training for each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.experiments.reproduce.experiment import Arm, Experiment, Measurement
from torchreptile.training.evaluation.published import PUBLISHED

FINE_TUNED = " fine-tuned"
# What makes a published form of an algorithm. Vinyals et al. 2016 give neither the number of reads nor of steps; those
# are ours (docs/algorithms/matching.md).
FORMS: dict[str, dict[str, Any]] = {
    "matching FCE": {"fce_reads": 3},
    f"matching{FINE_TUNED}": {"finetune_steps": 5},
    "pretrained cosine": {"pretrained_head": "cosine"},
}
TITLES = {
    "reptile": "Reptile",
    "maml": "MAML",
    "fomaml": "First-order MAML",
    "anil": "ANIL",
    "meta-sgd": "Meta-SGD",
    "matching": "Matching Networks",
    "matching FCE": "Matching Networks with full context embeddings",
    f"matching{FINE_TUNED}": "Matching Networks, fine-tuned",
    "protonet": "Prototypical Networks",
    "pretrained": "Baseline",
    "pretrained cosine": "Baseline++",
    "mann": "MANN",
    "meta-lstm": "Meta-LSTM",
}
DATASETS = {"omniglot": "Omniglot", "mini-imagenet": "mini-ImageNet"}


def _rows() -> list[Experiment]:
    """An experiment for every row and way of :data:`PUBLISHED`, in its order."""
    rows: dict[tuple[str, str, int], dict[tuple[int, str], None]] = {}
    for variant, dataset, way, shots, _ in PUBLISHED:
        trained = variant.removesuffix(FINE_TUNED)  # which changes the evaluation alone
        rows.setdefault((trained, dataset, way), {})[shots, variant] = None
    return [_row(*row, sorted(cells)) for row, cells in rows.items()]


def _row(variant: str, dataset: str, way: int, cells: Sequence[tuple[int, str]]) -> Experiment:
    """``cells``: shots and variant of each that is to be measured."""
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
    also = ", as they are and fine-tuned" if len(variants) > 1 else ""
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
    """Whether they differ in nothing but how they are evaluated."""
    if one.task.images_per_class != other.task.images_per_class:
        return False
    return one.replace(shots=other.task.shots, **dataclasses.asdict(other.evaluation)) == other


ROWS = _rows()
