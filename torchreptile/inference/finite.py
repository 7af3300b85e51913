"""Refusal of adapted networks, and of predictions, that are not finite numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from torchreptile.algorithms.base import Adapted, Algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.errors import DivergedError
from torchreptile.training.evaluation.divergence import cause


def require_finite_weights(algorithm: Algorithm, state: MetaState, adapted: Adapted, remedy: str = "") -> None:
    """Raise DivergedError if adaptation to a support set moved weights to numbers that are not finite.

    Args:
        algorithm: adapted the network.
        state: the state before adaptation.
        adapted: the adapted network.
        remedy: what to try in addition, as the end of the message.
    """
    moved, _ = algorithm.settled(state, adapted)
    if not bool(torch.stack([p.isfinite().all() for p in moved.params.values()]).all()):
        advice = cause(algorithm.config, steps="steps")
        raise DivergedError(f"adaptation diverged, its weights are not finite numbers: {advice}{remedy}")


def require_finite_predictions(algorithm: Algorithm, finite: Tensor, kind: str) -> None:
    """Raise DivergedError unless all predictions are finite.

    Args:
        algorithm: adapted the network that predicted.
        finite: (N,) whether the prediction of each image or point is finite.
        kind: what was predicted for, such as "images".
    """
    if not bool(finite.all()):
        count = int((~finite).sum())
        advice = cause(algorithm.config, steps="steps")
        raise DivergedError(
            f"predictions for {count:,} of {len(finite):,} {kind} diverged, they are not finite numbers: {advice}"
        )
