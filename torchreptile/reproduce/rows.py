"""The rows of the papers' tables: for every published cell the training that it comes from, and its measurement.

Shots alone change Reptile's evaluation and not its training, so one training gives both columns of a row; the
algorithms that are trained with the shots they are tested with have a training for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchreptile.config import Config
from torchreptile.presets import preset
from torchreptile.published import PUBLISHED
from torchreptile.reproduce.experiment import Arm, Experiment, Measurement

# What makes a published form of an algorithm. Vinyals et al. 2016 give neither the number of reads nor of steps; those
# are ours (docs/algorithms/matching.md).
FORMS: dict[str, dict[str, Any]] = {
    "matching FCE": {"fce_reads": 3},
    "matching fine-tuned": {"finetune_steps": 5},
    "pretrained cosine": {"pretrained_head": "cosine"},
}
TITLES = {
    "reptile": "Reptile",
    "foml": "FOML (first-order MAML in the Reptile paper's form)",
    "maml": "MAML",
    "fomaml": "First-order MAML",
    "anil": "ANIL",
    "meta-sgd": "Meta-SGD",
    "matching": "Matching Networks",
    "matching FCE": "Matching Networks with full context embeddings",
    "matching fine-tuned": "Matching Networks, fine-tuned",
    "protonet": "Prototypical Networks",
    "pretrained": "Baseline, an ordinary classifier's features",
    "pretrained cosine": "Baseline, the same compared by cosines",
    "mann": "MANN",
    "meta-lstm": "Meta-LSTM",
}
DATASETS = {"omniglot": "Omniglot", "mini-imagenet": "mini-ImageNet"}


def _rows() -> list[Experiment]:
    """An experiment for every row and way of :data:`PUBLISHED`, in its order."""
    rows: dict[tuple[str, str, int], list[int]] = {}
    for variant, dataset, way, shots, _ in PUBLISHED:
        its = rows.setdefault((variant, dataset, way), [])
        if shots not in its:
            its.append(shots)
    return [_row(variant, dataset, way, sorted(shots)) for (variant, dataset, way), shots in rows.items()]


def _row(variant: str, dataset: str, way: int, all_shots: Sequence[int]) -> Experiment:
    algorithm, form = variant.partition(" ")[0], FORMS.get(variant, {})
    configs = [preset(f"{dataset}-{shots}shot-{way}way", algorithm).replace(**form) for shots in all_shots]
    arms: list[Arm] = []
    for config in configs:
        if arms and _trained_alike(arms[0].config, config):
            measured = (*arms[0].measurements, Measurement.of(config))
            arms[0] = Arm(algorithm, TITLES[variant], arms[0].config, measured)
        else:
            name = f"{algorithm}-{config.task.shots}shot"
            arms.append(Arm.of(name, TITLES[variant], config))
    sources = dict.fromkeys(
        cell.source
        for (its, where, ways, *_), cell in PUBLISHED.items()
        if (its, where, ways) == (variant, dataset, way)
    )
    plain = f"{dataset}-{way}way"
    return Experiment(
        name=plain if variant == "reptile" else f"{variant.lower().replace(' ', '-')}-{plain}",
        what=f"{TITLES[variant]} on {DATASETS[dataset]}, {way}-way, {' and '.join(map(str, all_shots))}-shot",
        source="; ".join(sources),
        kind="row",
        arms=tuple(arms),
    )


def _trained_alike(one: Config, other: Config) -> bool:
    """Whether they differ in nothing but how they are evaluated."""
    if one.task.images_per_class != other.task.images_per_class:
        return False
    its = other.evaluation
    return one.replace(shots=other.task.shots, eval_steps=its.eval_steps, eval_batch=its.eval_batch) == other


ROWS = _rows()
