"""What a learner is asked for: the label of an image, or the value of a function at a point.

Nothing else tells classification from regression to the algorithms: labels are whole numbers (int64) and values are
floats, and by that alone the loss, the answer and the score of an answer are chosen here.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def are_values(y: Tensor) -> bool:
    """Whether these targets are values (..., B, targets), not labels (..., B)."""
    return y.is_floating_point()


def task_losses(outputs: Tensor, y: Tensor) -> Tensor:
    """The mean loss of each task, (T,).

    Args:
        outputs: (T, B, way) logits, or (T, B, targets) values.
        y: (T, B) labels: cross-entropy; or (T, B, targets) values: squared error, averaged over targets too.
    """
    if are_values(y):
        return (outputs - y).square().mean((1, 2))
    return F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none").view(y.shape).mean(1)


def mean_loss(outputs: Tensor, y: Tensor) -> Tensor:
    """The same of a single task: (B, way) with (B,) labels, or (B, targets) with as many values -> ()."""
    return F.mse_loss(outputs, y) if are_values(y) else F.cross_entropy(outputs, y)


def answers(outputs: Tensor, y: Tensor) -> Tensor:
    """What a network's outputs say, shaped like ``y``: the label with the largest logit, or the values themselves."""
    return outputs if are_values(y) else outputs.argmax(-1)


def scores(answered: Tensor, y: Tensor) -> Tensor:
    """How good the answers of each task are, (T,) float64: the share that is right, or the mean squared error."""
    if are_values(y):
        return (answered.double() - y.double()).square().mean((1, 2))
    return (answered == y).double().mean(1)
