"""The stream of inner mini-batches, as index arithmetic for all tasks at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def minibatches(
    tasks: int, images: int, batch: int, steps: int, replacement: bool, generator: torch.Generator
) -> Tensor:
    """Which images each inner step sees: (tasks, steps, batch) int64, values 0 to images - 1.

    Cycling (the published setting): every task's images are shuffled and cut into batches; what is left
    over at the end of a pass is carried into the first batch of the next, freshly shuffled pass. So 75
    images in batches of 10 give an 8th batch of 5 left-overs and 5 images of the second pass.
    With ``replacement`` every batch is drawn independently, without repetition inside the batch. A ``batch`` of 0 is
    all images in every step, in their order; nothing is drawn then.

    Args:
        tasks, images, batch, steps: the sizes; ``replacement`` needs batch <= images.
        generator: the source of all randomness; the indices live on its device.
    """
    if not batch:
        return torch.arange(images, device=generator.device).expand(tasks, steps, images)
    passes = steps if replacement else math.ceil(steps * batch / images)
    keys = torch.rand(tasks, passes, images, generator=generator, device=generator.device)
    order = keys.argsort(dim=2)
    if replacement:
        return order[:, :, :batch]
    return order.flatten(1)[:, : steps * batch].view(tasks, steps, batch)
