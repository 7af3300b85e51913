"""Files of fitted classifiers: the weights before and after adaptation and the support set, as tensors and JSON.

A classifier file is a weights file with more tensors, so everything that reads weights reads it too, and gets the
weights before adaptation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchreptile.core.config.validation import LARGEST_SEED, MOST_STEPS
from torchreptile.core.errors import ConfigError, DataError, RunError
from torchreptile.inference.rejection import Rejection, check_rate
from torchreptile.models.built_in import Params
from torchreptile.training.weights import MetaWeights, read_weights, save_weights, weights_card

ADAPTED = "adapted."  # prefix of the names of adapted weights
IMAGES, LABELS = "support.images", "support.labels"
FIT_SETTINGS = ("steps", "batch", "inner_lr", "balanced", "transductive", "reject", "seed")  # of a fitted classifier
KINDS = "biufU"  # dtype kinds of labels that JSON can hold: truth values, numbers, strings


@dataclass(frozen=True, eq=False)
class SavedClassifier:
    """The content of a classifier file.

    Attributes:
        weights: the weights before adaptation.
        adapted: the parameters that adaptation changed, by name, for K classes.
        evaluation: settings under which adapting once more changes nothing.
        support: (N, C, H, W) uint8 images of the support set.
        labels: (N,) int64 indices into ``classes``.
        classes: (K,) labels of the user.
        settings: those of the classifier when it was fitted, see ``FIT_SETTINGS``.
        rejection: recognises images of none of the classes; None without ``reject``.
    """

    weights: MetaWeights
    adapted: Params
    evaluation: dict[str, int]
    support: Tensor
    labels: Tensor
    classes: NDArray[Any]
    settings: dict[str, Any]
    rejection: Rejection | None = None


def write(classifier: SavedClassifier, path: Path) -> None:
    """Write a classifier file (.safetensors) and its card (.json).

    Raises:
        ConfigError: ``path`` has another suffix, or its folder is missing.
        DataError: the labels have a type that JSON cannot hold.
        RunError: the card would replace a .json file that is not a card.
    """
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'}; a classifier file ends in .safetensors")
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: the folder {path.parent} is missing")
    if classifier.classes.dtype.kind not in KINDS:
        kind = type(classifier.classes.tolist()[0]).__name__
        raise DataError(f"labels are of type {kind}, which cannot be saved; use strings or numbers")
    card = {
        "classifier": {
            "classes": classifier.classes.tolist(),
            "settings": classifier.settings,
            "evaluation": classifier.evaluation,
            "rejection": classifier.rejection and classifier.rejection.to_json(),
        }
    }
    tensors = {ADAPTED + name: p for name, p in classifier.adapted.items()}
    save_weights(classifier.weights, path, card, tensors | {IMAGES: classifier.support, LABELS: classifier.labels})


def read(path: Path) -> SavedClassifier:
    """Read a classifier file that :func:`write` wrote.

    Raises:
        RunError: the file is missing, damaged, or not a classifier.
    """
    if path.suffix != ".safetensors":
        raise RunError(f"{path} is not a classifier file; reptile adapt --save writes one, which ends in .safetensors")
    if not path.is_file():
        raise RunError(f"{path}: there is no such file")
    card = weights_card(path).get("classifier")
    if card is None:
        raise RunError(f"{path}: weights without a support set; fit them, or name a saved classifier")
    weights, tensors = read_weights(path)
    try:
        support, labels = tensors[IMAGES], tensors[LABELS]
        classes = np.array(card["classes"])
        adapted = {name.removeprefix(ADAPTED): p for name, p in tensors.items() if name.startswith(ADAPTED)}
        # Earlier files do not have these: they were fitted with the rate of the weights, not balanced, not rejecting.
        known = {"inner_lr": None, "balanced": False, "reject": None} | card["settings"]
        settings = {name: known[name] for name in FIT_SETTINGS}
        evaluation = {name: card["evaluation"][name] for name in ("eval_steps", "finetune_steps")}
        _require_settings(settings, evaluation)
        rejection = Rejection.from_json(card["rejection"]) if settings["reject"] is not None else None
    except (LookupError, TypeError, ValueError, OverflowError, ConfigError) as error:
        raise RunError(f"{path}: not a readable classifier ({error})") from error
    sound = (
        classes.dtype.kind in KINDS
        and classes.ndim == 1
        and len(classes) > 0
        and support.dtype == torch.uint8
        and support.shape[1:] == weights.config.task.image_shape
        and labels.dtype == torch.int64
        and labels.shape == support.shape[:1]
        and sorted(set(labels.tolist())) == list(range(len(classes)))
        and len(set(classes.tolist())) == len(classes)
        and all(bool(p.is_floating_point() and p.isfinite().all()) for p in adapted.values())
    )
    if not sound:
        raise RunError(f"{path}: damaged: its classes, labels and images do not match")
    return SavedClassifier(weights, adapted, evaluation, support, labels, classes, settings, rejection)


def _require_settings(settings: dict[str, Any], evaluation: dict[str, Any]) -> None:
    """Refuse settings of a card whose types or values no classifier has."""
    for name in ("transductive", "balanced"):
        if type(settings[name]) is not bool:
            raise ValueError(f"{name} is neither true nor false")
    rate = settings["inner_lr"]
    if rate is not None and not (type(rate) is float and math.isfinite(rate) and rate > 0):
        raise ValueError(f"inner_lr is {str(rate)[:50]}")
    check_rate(settings["reject"])
    counts = {name: settings[name] for name in ("steps", "batch") if settings[name] is not None} | evaluation
    for name, count in (counts | {"seed": settings["seed"]}).items():
        if type(count) is not int or not 0 <= count <= (LARGEST_SEED if name == "seed" else MOST_STEPS):
            raise ValueError(f"{name} is {str(count)[:50]}")


def is_classifier(path: Path) -> bool:
    """Return whether ``path`` is a classifier file, not a weights file or a run folder."""
    return path.suffix == ".safetensors" and path.is_file() and "classifier" in weights_card(path)
