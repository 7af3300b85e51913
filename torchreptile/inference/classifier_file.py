"""A fitted classifier as a file: meta-learned weights, the support set, and what it made of it. Tensors and JSON alone.

It is a weights file with more in it, so whatever takes weights takes it too. The weights as they were before adapting
are kept as well: another support set starts from those.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchreptile.algorithms.optim.inner_loop import Params
from torchreptile.core.errors import ConfigError, DataError, RunError
from torchreptile.training.weights import MetaWeights, read_weights, save_weights, weights_card

ADAPTED = "adapted."  # before the names of weights that adapting moved
IMAGES, LABELS = "support.images", "support.labels"
KINDS = "biufU"  # of labels that JSON can hold: truth values, numbers, strings


@dataclass(frozen=True, eq=False)
class Remembered:
    """What a fitted classifier knows.

    Attributes:
        learned: what was meta-learned.
        adapted: the weights that adapting moved, for as many classes as there are.
        evaluation: settings under which adapting to the support set again leaves those as they are.
        support: (N, C, H, W) uint8.
        labels: (N,) int64, places in ``classes``.
        classes: (K,) what they are called.
        settings: the classifier's own: steps, batch, transductive, seed.
    """

    learned: MetaWeights
    adapted: Params
    evaluation: dict[str, int]
    support: Tensor
    labels: Tensor
    classes: NDArray[Any]
    settings: dict[str, Any]


def write(what: Remembered, path: Path) -> None:
    """Write ``path`` (.safetensors) and its card beside it (.json).

    Raises:
        ConfigError: the name ends otherwise.
        DataError: classes are called what JSON cannot hold.
        RunError: there is another file in the card's place.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'}; a classifier's name ends in .safetensors")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: there is no folder {path.parent}")
    if what.classes.dtype.kind not in KINDS:
        kind = type(what.classes.tolist()[0]).__name__
        raise DataError(f"labels are of type {kind}, which cannot be saved; use strings or numbers")
    card = {
        "classifier": {
            "classes": what.classes.tolist(),
            "settings": what.settings,
            "evaluation": what.evaluation,
        }
    }
    tensors = {ADAPTED + name: p for name, p in what.adapted.items()}
    save_weights(what.learned, path, card, tensors | {IMAGES: what.support, LABELS: what.labels})


def read(path: Path) -> Remembered:
    """What :func:`write` wrote.

    Raises:
        RunError: it is missing, damaged, or not a classifier.
    """
    if path.suffix != ".safetensors":
        raise RunError(f"{path} is no classifier; reptile adapt --save makes one, which ends in .safetensors")
    if not path.is_file():
        raise RunError(f"{path}: there is no such file")
    card = weights_card(path).get("classifier")
    if card is None:
        raise RunError(f"{path}: weights that were not adapted to anything; fit them, or name a saved classifier")
    learned, tensors = read_weights(path)
    try:
        support, labels = tensors[IMAGES], tensors[LABELS]
        classes = np.array(card["classes"])
        adapted = {name.removeprefix(ADAPTED): p for name, p in tensors.items() if name.startswith(ADAPTED)}
        settings = {name: card["settings"][name] for name in ("steps", "batch", "transductive", "seed")}
        evaluation = {name: int(card["evaluation"][name]) for name in ("eval_steps", "finetune_steps")}
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{path}: not a readable classifier ({error})") from error
    sound = (
        classes.dtype.kind in KINDS
        and classes.ndim == 1
        and support.dtype == torch.uint8
        and support.shape[1:] == learned.config.task.image_shape
        and labels.dtype == torch.int64
        and labels.shape == support.shape[:1]
        and sorted(set(labels.tolist())) == list(range(len(classes)))
    )
    if not sound:
        raise RunError(f"{path}: damaged: its classes, labels and images do not belong together")
    return Remembered(learned, adapted, evaluation, support, labels, classes, settings)


def is_classifier(path: Path) -> bool:
    """Whether ``path`` holds a fitted classifier, rather than weights or a run."""
    return path.suffix == ".safetensors" and path.is_file() and "classifier" in weights_card(path)
