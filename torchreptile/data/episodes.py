"""Episodes: a batch of few-shot tasks as tensors, the input of every algorithm."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Episodes:
    """A batch of few-shot tasks, each with a support set and a query set of images and labels, or points of a function.

    The examples of a set are ordered by label: the shots of label 0 first.

    Attributes:
        support_x: (task, way * shot, C, H, W) float, each pixel from 0 to 1.
        support_y: (task, way * shot) int64, labels from 0 to way - 1.
        query_x: (task, way * query, C, H, W) float, each pixel from 0 to 1.
        query_y: (task, way * query) int64.
        classes: (task, way) int64, the class of the store that each label stands for.

    Where tasks are functions, x is (task, shot or query, inputs) float, y is (task, shot or query, targets) float, and
    classes is (task, 1) int64, the task of the store.

    Example:
        >>> import torch
        >>> import torchreptile as tr
        >>> episodes = tr.Episodes(
        ...     support_x=torch.rand(3, 5, 1, 28, 28),
        ...     support_y=torch.arange(5).expand(3, 5),
        ...     query_x=torch.rand(3, 10, 1, 28, 28),
        ...     query_y=torch.arange(5).repeat_interleave(2).expand(3, 10),
        ...     classes=torch.arange(15).view(3, 5),
        ... )
        >>> len(episodes), len(episodes[:2])
        (3, 2)
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    classes: Tensor

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.support_x)

    def __getitem__(self, tasks: slice) -> Episodes:
        """Return the episodes of a slice of the tasks."""
        return Episodes(*(getattr(self, field.name)[tasks] for field in fields(self)))
