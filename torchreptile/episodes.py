"""Episodes: the one type every algorithm sees, and the sampler that draws them by index."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from torchreptile.data.store import ImageStore
from torchreptile.errors import DataError


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


class Draw:
    """Draws by index: groups of a store without repetition, then members of each without repetition."""

    def __init__(self, sizes: Tensor) -> None:
        """``sizes``: (K,) int64, how many members each group has; they lie one group after another."""
        self._starts = sizes.cumsum(0) - sizes
        # Members beyond a group's size must never be drawn: their random keys are pushed below all others.
        columns = torch.arange(int(sizes.max()), device=sizes.device)
        beyond = columns >= sizes[:, None]
        self._beyond = beyond if bool(beyond.any()) else None
        self._columns = len(columns)

    def __call__(self, tasks: int, groups: int, members: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which groups, (tasks, groups), and the indices of their members, (tasks, groups, members)."""
        device = self._starts.device
        keys = torch.rand(tasks, len(self._starts), generator=generator, device=device)
        drawn = keys.topk(groups, dim=1).indices  # the largest keys are a random subset in random order
        keys = torch.rand(tasks, groups, self._columns, generator=generator, device=device)
        if self._beyond is not None:
            keys = keys.masked_fill(self._beyond[drawn], -1.0)
        within = keys.topk(members, dim=2).indices
        return drawn, self._starts[drawn][:, :, None] + within


class EpisodeSampler:
    """Draws tasks from a store: ``way`` classes without repetition, then images without repetition."""

    scale = None  # labels have no units

    def __init__(
        self, store: ImageStore, way: int, shots: int, queries: int, dtype: torch.dtype = torch.float32
    ) -> None:
        """Check once that every task that can be drawn has enough classes and images.

        Args:
            store: where classes and images come from; episodes live on its device.
            way: classes per task.
            shots: support images per class.
            queries: query images per class, none of them in the support set; 0 for no query set.
            dtype: of the images in the episodes.

        Raises:
            DataError: too few classes, or a class with too few images, named with its count.
        """
        if way > len(store):
            raise DataError(
                f"{store.name} has {len(store)} classes here, too few for {way}-way tasks; "
                "ask for fewer (--way, --train-way), or divide own images otherwise "
                "(--split-ratio 0.7/0/0.3 has no validation classes)"
            )
        needed = shots + queries
        short = (store.class_sizes < needed).nonzero().flatten().tolist()
        if short:
            name, images = store.class_names[short[0]], int(store.class_sizes[short[0]])
            others = f" (classes with too few: {len(short):,})" if len(short) > 1 else ""
            raise DataError(
                f"class {name} of {store.name} has {images} images; "
                f"{shots} shots + {queries} queries need {needed}{others}; "
                "add images, leave such classes out, or ask for fewer (--shots, --train-shots, --queries)"
            )
        self.store, self.way, self.shots, self.queries, self.dtype = store, way, shots, queries, dtype
        self._draw = Draw(store.class_sizes)

    def sample(self, tasks: int, generator: torch.Generator) -> Episodes:
        """Draw ``tasks`` independent tasks.

        Args:
            tasks: how many.
            generator: the source of all randomness, on the store's device.
        """
        classes, images = self._draw(tasks, self.way, self.shots + self.queries, generator)
        return Episodes(
            self._pixels(images[:, :, : self.shots]),
            self._labels(tasks, self.shots),
            self._pixels(images[:, :, self.shots :]),
            self._labels(tasks, self.queries),
            classes,
        )

    def _pixels(self, images: Tensor) -> Tensor:
        """(T, way, S) image indices -> (T, way * S, C, H, W), each pixel from 0 to 1."""
        picked = self.store.images[images.flatten(1)]
        return picked.to(self.dtype).div_(255)

    def _labels(self, tasks: int, per_class: int) -> Tensor:
        labels = torch.arange(self.way, device=self.store.images.device).repeat_interleave(per_class)
        return labels.expand(tasks, -1)
