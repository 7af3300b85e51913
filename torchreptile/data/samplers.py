"""Samplers, which draw tasks from a store: EpisodeSampler for images, SineSampler and RowSampler for functions."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from torchreptile.core.errors import DataError
from torchreptile.data.episodes import Episodes
from torchreptile.data.functions.sine import AMPLITUDES, REACH, Sines
from torchreptile.data.functions.tables import Scale, Tables
from torchreptile.data.image_store import ImageStore

Store = ImageStore | Sines | Tables
"""A source of tasks."""


class Sampler(Protocol):
    """The interface of samplers, which draw tasks from a store."""

    @property
    def store(self) -> Store:
        """The source of the tasks; episodes are on its device."""

    @property
    def scale(self) -> Scale | None:
        """The standardisation of values that have units; None where there are none."""

    def sample(self, tasks: int, generator: torch.Generator) -> Episodes:
        """Draw ``tasks`` independent tasks; ``generator``, on the store's device, is the source of all randomness."""


def sampler_of(store: Store, way: int, shots: int, queries: int) -> Sampler:
    """Make the sampler for a kind of store.

    Args:
        store: the source of the tasks.
        way: classes per task; ignored for functions.
        shots: support images per class, or support points.
        queries: query images per class, or query points.

    Raises:
        DataError: there are too few classes, or a class or task has too few images or points.
    """
    if isinstance(store, ImageStore):
        return EpisodeSampler(store, way, shots, queries)
    return SineSampler(store, shots, queries) if isinstance(store, Sines) else RowSampler(store, shots, queries)


class SineSampler:
    """A sampler that draws a new sine wave for every task, and points on it.

    Example:
        >>> from torchreptile.data.functions.sine import sines
        >>> sampler = SineSampler(sines("sine"), shots=10, queries=50)
        >>> episodes = sampler.sample(3, torch.Generator().manual_seed(0))
        >>> episodes.support_x.shape, episodes.query_y.shape
        (torch.Size([3, 10, 1]), torch.Size([3, 50, 1]))
    """

    scale = None

    def __init__(self, store: Sines, shots: int, queries: int, dtype: torch.dtype = torch.float32) -> None:
        """Check that there are enough points.

        Args:
            store: the kind of waves.
            shots: support points per task.
            queries: query points per task; they may coincide with support points.
            dtype: dtype of the episodes.

        Raises:
            DataError: waves have fewer points than ``shots``.
        """
        if 0 < store.points < shots:
            raise DataError(
                f"{store.name} has {store.points} points per task, too few for {shots} (--shots, --train-shots)"
            )
        self.store, self.shots, self.queries, self.dtype = store, shots, queries, dtype

    def sample(self, tasks: int, generator: torch.Generator) -> Episodes:
        """Draw ``tasks`` independent waves; ``generator``, on the store's device, is the source of all randomness."""
        device, points = self.store.device, self.store.points
        uniform = torch.rand(2, tasks, 1, 1, generator=generator, device=device).to(self.dtype)
        amplitude = AMPLITUDES[0] + (AMPLITUDES[1] - AMPLITUDES[0]) * uniform[0]
        phase = self.store.phase * uniform[1]
        if points:
            order = torch.rand(tasks, points, generator=generator, device=device).argsort(1)[:, : self.shots]
            support = self._evenly(points)[order]
            query = self._evenly(self.queries).expand(tasks, -1)
        else:
            both = torch.rand(tasks, self.shots + self.queries, generator=generator, device=device).to(self.dtype)
            support, query = torch.split(REACH * (2 * both - 1), [self.shots, self.queries], dim=1)
        (x, y), (query_x, query_y) = (
            (its.unsqueeze(2), amplitude * torch.sin(its.unsqueeze(2) + phase)) for its in (support, query)
        )
        return Episodes(x, y, query_x, query_y, torch.zeros(tasks, 1, dtype=torch.int64, device=device))

    def _evenly(self, points: int) -> Tensor:
        """Return (points,) evenly spaced inputs."""
        return torch.linspace(-REACH, REACH, points, dtype=self.dtype, device=self.store.device)


class RowSampler:
    """A sampler that draws tasks of a table, then rows of each without repetition, and standardises them."""

    def __init__(self, store: Tables, shots: int, queries: int, dtype: torch.dtype = torch.float32) -> None:
        """Check that every task has enough rows.

        Args:
            store: the tables.
            shots: support rows per task.
            queries: query rows per task, none of them in the support set.
            dtype: dtype of the episodes.

        Raises:
            DataError: a task has too few rows; the message names it and its count.
        """
        needed = shots + queries
        if short := (store.task_sizes < needed).nonzero().flatten().tolist():
            rows = int(store.task_sizes[short[0]])
            others = f" (tasks with too few: {len(short):,})" if len(short) > 1 else ""
            raise DataError(
                f"task {store.task_names[short[0]]} of {store.name} has {rows} rows; {shots} shots + {queries} queries "
                f"need {needed}{others}; leave such tasks out, or ask for fewer (--shots, --train-shots, --queries)"
            )
        self.store, self.shots, self.queries, self.dtype = store, shots, queries, dtype
        self.scale = store.scale
        self._x, self._y = store.scale.standard_x(store.x), store.scale.standard_y(store.y)
        self._draw = Draw(store.task_sizes)

    def sample(self, tasks: int, generator: torch.Generator) -> Episodes:
        """Draw ``tasks`` independent tasks; ``generator``, on the store's device, is the source of all randomness."""
        drawn, rows = self.indices(tasks, generator)
        x, y = (values[rows.flatten(1)].to(self.dtype) for values in (self._x, self._y))
        cut = [self.shots, self.queries]
        (support_x, query_x), (support_y, query_y) = torch.split(x, cut, dim=1), torch.split(y, cut, dim=1)
        return Episodes(support_x, support_y, query_x, query_y, drawn)

    def indices(self, tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the tasks that :meth:`sample` would draw of the same generator, as indices into the store.

        Returns:
            (task, 1) int64 tasks of the table, and (task, 1, shots + queries) int64 rows, the support rows first.
        """
        return self._draw(tasks, 1, self.shots + self.queries, generator)


class Draw:
    """A draw of indices: groups of a store without repetition, then members of each group without repetition."""

    def __init__(self, sizes: Tensor) -> None:
        """Prepare the draw.

        Args:
            sizes: (K,) int64, the number of members of each group; groups are stored one after another.
        """
        self._starts = sizes.cumsum(0) - sizes
        # Members beyond a group's size must never be drawn: their random keys are set below all others.
        columns = torch.arange(int(sizes.max()), device=sizes.device)
        beyond = columns >= sizes[:, None]
        self._beyond = beyond if bool(beyond.any()) else None
        self._columns = len(columns)

    def __call__(self, tasks: int, groups: int, members: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw for every task.

        Returns:
            (task, group) int64, the groups drawn, and (task, group, member) int64, the indices of the members drawn.
        """
        device = self._starts.device
        keys = torch.rand(tasks, len(self._starts), generator=generator, device=device)
        drawn = keys.topk(groups, dim=1).indices  # the largest keys are a random subset in random order
        keys = torch.rand(tasks, groups, self._columns, generator=generator, device=device)
        if self._beyond is not None:
            keys = keys.masked_fill(self._beyond[drawn], -1.0)
        within = keys.topk(members, dim=2).indices
        return drawn, self._starts[drawn][:, :, None] + within


class EpisodeSampler:
    """A sampler of classification tasks: it draws ``way`` classes, then images of each, both without repetition.

    Example:
        >>> import torch
        >>> import torchreptile as tr
        >>> images = torch.randint(0, 256, (80, 1, 28, 28), dtype=torch.uint8)
        >>> names = tuple(f"class{number}" for number in range(8))
        >>> store = tr.ImageStore(images, torch.full((8,), 10), names, name="random")
        >>> sampler = tr.EpisodeSampler(store, way=5, shots=1, queries=3)
        >>> episodes = sampler.sample(4, torch.Generator().manual_seed(0))
        >>> episodes.support_x.shape, episodes.query_y.shape
        (torch.Size([4, 5, 1, 28, 28]), torch.Size([4, 15]))
        >>> episodes.support_y[0]
        tensor([0, 1, 2, 3, 4])
    """

    scale = None  # labels have no units

    def __init__(
        self, store: ImageStore, way: int, shots: int, queries: int, dtype: torch.dtype = torch.float32
    ) -> None:
        """Check once that every task that can be drawn has enough classes and images.

        Args:
            store: the source of classes and images; episodes are on its device.
            way: classes per task.
            shots: support images per class.
            queries: query images per class, none of them in the support set; 0 for no query set.
            dtype: dtype of the images in the episodes.

        Raises:
            DataError: there are too few classes, or a class has too few images; the message names it and its count.
        """
        if way > len(store):
            raise DataError(
                f"{store.name} has {len(store)} classes here, too few for {way}-way tasks; "
                "ask for fewer (--way, --train-way), or divide your own images differently "
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
            tasks: number of tasks.
            generator: source of all randomness, on the store's device.
        """
        classes, images = self.indices(tasks, generator)
        return Episodes(
            self._pixels(images[:, :, : self.shots]),
            self._labels(tasks, self.shots),
            self._pixels(images[:, :, self.shots :]),
            self._labels(tasks, self.queries),
            classes,
        )

    def indices(self, tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the tasks that :meth:`sample` would draw of the same generator, as indices into the store.

        Returns:
            (task, way) int64 classes, and (task, way, shots + queries) int64 images, the support images first.
        """
        return self._draw(tasks, self.way, self.shots + self.queries, generator)

    def _pixels(self, images: Tensor) -> Tensor:
        """Look up (task, way, image) indices: (task, way * image, C, H, W) float, each pixel from 0 to 1."""
        picked = self.store.images[images.flatten(1)]
        return picked.to(self.dtype).div_(255)

    def _labels(self, tasks: int, per_class: int) -> Tensor:
        """Return (task, way * per_class) int64 labels."""
        labels = torch.arange(self.way, device=self.store.images.device).repeat_interleave(per_class)
        return labels.expand(tasks, -1)
