"""How tasks are drawn from a store: of images by :class:`EpisodeSampler`, of functions here."""

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
"""Where tasks come from."""


class Sampler(Protocol):
    """Draws tasks from a store."""

    @property
    def store(self) -> Store:
        """Where they come from; they live on its device."""

    @property
    def scale(self) -> Scale | None:
        """What values were standardised by, if they have units of their own."""

    def sample(self, tasks: int, generator: torch.Generator) -> Episodes:
        """Draw ``tasks`` independent tasks; ``generator``, on the store's device, is the source of all randomness."""


def sampler_of(store: Store, way: int, shots: int, queries: int) -> Sampler:
    """The sampler of tasks of ``shots`` support and ``queries`` query images per class, or points where there are none.

    Raises:
        DataError: a class or a task has too few of them, or there are too few classes.
    """
    if isinstance(store, ImageStore):
        return EpisodeSampler(store, way, shots, queries)
    return SineSampler(store, shots, queries) if isinstance(store, Sines) else RowSampler(store, shots, queries)


class SineSampler:
    """Draws a new wave for every task, and points on it."""

    scale = None

    def __init__(self, store: Sines, shots: int, queries: int, dtype: torch.dtype = torch.float32) -> None:
        """``shots`` support and ``queries`` query points; the latter may fall on the former.

        Raises:
            DataError: there are fewer points than ``shots``.
        """
        if 0 < store.points < shots:
            raise DataError(
                f"{store.name} has {store.points} points per task, too few for {shots} (--shots, --train-shots)"
            )
        self.store, self.shots, self.queries, self.dtype = store, shots, queries, dtype

    def sample(self, tasks: int, generator: torch.Generator) -> Episodes:
        """Draw ``tasks`` independent waves."""
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
        return torch.linspace(-REACH, REACH, points, dtype=self.dtype, device=self.store.device)


class RowSampler:
    """Draws a task of a table, then rows of it without repetition, and standardises them."""

    def __init__(self, store: Tables, shots: int, queries: int, dtype: torch.dtype = torch.float32) -> None:
        """``shots`` support and ``queries`` query rows.

        Raises:
            DataError: a task has too few rows, named with its count.
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
        """Draw ``tasks`` independent tasks."""
        drawn, rows = self._draw(tasks, 1, self.shots + self.queries, generator)
        x, y = (values[rows.flatten(1)].to(self.dtype) for values in (self._x, self._y))
        cut = [self.shots, self.queries]
        (support_x, query_x), (support_y, query_y) = torch.split(x, cut, dim=1), torch.split(y, cut, dim=1)
        return Episodes(support_x, support_y, query_x, query_y, drawn)


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
