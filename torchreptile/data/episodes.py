"""Episodes: the one type every algorithm sees, and the sampler that draws them by index."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Episodes:
    """T few-shot tasks, each with its support set and its query set: images and labels, or points of a function.

    Attributes:
        support_x: (T, way * shots, C, H, W) float, each pixel from 0 to 1.
        support_y: (T, way * shots) int64, labels 0 to way - 1.
        query_x: (T, way * queries, C, H, W) float.
        query_y: (T, way * queries) int64.
        classes: (T, way) int64, which class of the store each label stands for.

    Where tasks are functions, x is (T, shots or queries, inputs) and y (T, ..., targets), both float, and classes
    (T, 1) which task of the store it is.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    classes: Tensor

    def __len__(self) -> int:
        """The number of tasks T."""
        return len(self.support_x)

    def __getitem__(self, tasks: slice) -> Episodes:
        """These tasks alone."""
        return Episodes(*(getattr(self, field.name)[tasks] for field in fields(self)))
