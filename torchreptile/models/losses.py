"""Losses, predictions and scores of classification and regression, chosen by the dtype of the targets.

Labels are integers (int64) and values are floats; nothing else tells the algorithms whether a task is classification
or regression.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

NO_ANSWER = -1
"""The label of a query whose logits are not finite: the network diverged. It is never right."""


def are_values(y: Tensor) -> bool:
    """Whether the targets are values (..., B, targets) rather than labels (..., B)."""
    return y.is_floating_point()


def task_losses(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the mean loss of each task, (T,): cross-entropy for labels, squared error for values.

    Args:
        outputs: (T, B, way) logits, or (T, B, targets) values; the squared error is averaged over targets too.
        y: (T, B) labels, or (T, B, targets) values.

    Example:
        >>> import torch
        >>> task_losses(torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.int64))  # log 5
        tensor([1.6094, 1.6094])
    """
    if are_values(y):
        return (outputs - y).square().mean((1, 2))
    return F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)


def mean_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the mean loss () of a single task: cross-entropy for labels, squared error for values.

    Args:
        outputs: (B, way) logits, or (B, targets) values.
        y: (B,) labels, or (B, targets) values.
    """
    return F.mse_loss(outputs, y) if are_values(y) else F.cross_entropy(outputs, y)


def answers(outputs: Tensor, y: Tensor) -> Tensor:
    """Return the predictions, shaped like ``y``: the labels with the largest logits, or the values themselves.

    Where the logits hold NaN or infinity, the label is ``NO_ANSWER``; argmax alone would answer with class 0.

    Args:
        outputs: (..., way) logits, or (..., targets) values.
        y: the targets, only their dtype matters.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[0.1, 2.0], [float("nan"), 0.3]])
        >>> answers(logits, torch.tensor([1, 0]))
        tensor([ 1, -1])
    """
    if are_values(y):
        return outputs
    return outputs.argmax(-1).where(answerable(outputs), NO_ANSWER)


def answerable(logits: Tensor) -> Tensor:
    """Return whether logits (..., way) single out a class, (...): none is NaN, and the largest is finite."""
    return logits.amax(-1).isfinite()


def scores(predicted: Tensor, y: Tensor) -> Tensor:
    """Return the score of each task, (T,) float64: accuracy from 0 to 1 for labels, mean squared error for values.

    Args:
        predicted: shaped like ``y``.
        y: (T, B) labels, or (T, B, targets) values.

    Example:
        >>> import torch
        >>> scores(torch.tensor([[0, 1, 1, 0]]), torch.tensor([[0, 1, 0, 0]]))
        tensor([0.7500], dtype=torch.float64)
    """
    if are_values(y):
        return (predicted.double() - y.double()).square().mean((1, 2))
    return (predicted == y).double().mean(1)
