"""Inner mini-batches, as index arithmetic for all tasks at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def minibatches(
    tasks: int, images: int, batch: int, steps: int, replacement: bool, generator: torch.Generator
) -> Tensor:
    """Draw the images of each inner step.

    By default, as published, the mini-batches cycle through a task's images: these are shuffled and cut into batches,
    and the rest at the end of a pass goes into the first batch of the next, newly shuffled pass. So 75 images in
    batches of 10 give an 8th batch of 5 remaining images and 5 of the second pass.

    Args:
        tasks: number of tasks.
        images: images of a task.
        batch: images in a mini-batch; 0 takes all images in every step, in order, and draws nothing.
        steps: inner steps.
        replacement: draw every batch independently, without repetition within it; needs ``batch <= images``.
        generator: source of all randomness; the indices are on its device.

    Returns:
        (task, step, batch) int64, from 0 to images - 1.

    Example:
        >>> batches = minibatches(1, 6, 3, 4, replacement=False, generator=torch.Generator().manual_seed(0))
        >>> batches.shape
        torch.Size([1, 4, 3])
        >>> batches[0, :2].flatten().sort().values  # the first pass has every image once
        tensor([0, 1, 2, 3, 4, 5])
    """
    if not batch:
        return torch.arange(images, device=generator.device).expand(tasks, steps, images)
    passes = steps if replacement else math.ceil(steps * batch / images)
    keys = torch.rand(tasks, passes, images, generator=generator, device=generator.device)
    order = keys.argsort(dim=2)
    if replacement:
        return order[:, :, :batch]
    return order.flatten(1)[:, : steps * batch].view(tasks, steps, batch)
