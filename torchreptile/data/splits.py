"""Splits: which classes (or tasks) are trained on, which choose the checkpoint and which are only ever measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, final

import torch

from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.image_store import ImageStore

if TYPE_CHECKING:
    pass

SPLIT_SCHEMES: dict[str, tuple[str, ...]] = {
    "omniglot": ("reptile", "vinyals", "background-evaluation"),
    "glyphs": ("seed",),
    "mini-imagenet": ("ravi",),
    "folder": ("own",),
    "sine": ("drawn",),
    "sine-maml": ("drawn",),
    "table": ("own",),
}
"""The schemes of every data set; the first one is what ``default`` means."""


Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class MissingSplit:
    """A split that is not there, which is no error until it is used; ``reason`` is the message of that error."""

    reason: str


Source = ImageStore | Callable[[], ImageStore] | MissingSplit
"""Where a split comes from: a store, what loads one when it is first used, or why there is none."""


S = TypeVar("S", covariant=True)


@final
class SplitsOf(Generic[S]):
    """Stores that share no class or task, each loaded when it is first used: one that is never used may be absent."""

    def __init__(
        self,
        train: S | Callable[[], S] | MissingSplit,
        val: S | Callable[[], S] | MissingSplit,
        test: S | Callable[[], S] | MissingSplit,
    ) -> None:
        """Nothing is loaded yet."""
        self._sources: dict[Split, S | Callable[[], S] | MissingSplit] = {"train": train, "val": val, "test": test}

    @cached_property
    def train(self) -> S:
        """Meta-training classes, with the four rotations where the scheme has them."""
        return self._load("train")

    @cached_property
    def val(self) -> S | None:
        """Meta-validation classes, never rotated; None where there are none."""
        return self._load("val") if self.has("val") else None

    @cached_property
    def test(self) -> S:
        """Meta-test classes, never rotated."""
        return self._load("test")

    def has(self, split: Split) -> bool:
        """Whether there is such a split; nothing is loaded to find out."""
        return not isinstance(self._sources[split], MissingSplit)

    def get(self, split: Split) -> S:
        """The split of that name.

        Raises:
            DataError: it is absent, or its data are damaged.
        """
        store: S | None = getattr(self, split)
        return self._load(split) if store is None else store

    def _load(self, split: Split) -> S:
        source = self._sources[split]
        if isinstance(source, MissingSplit):
            raise DataError(source.reason)
        return source() if callable(source) else source


Splits = SplitsOf[ImageStore]


T = TypeVar("T")


def mapped(splits: SplitsOf[T], change: Callable[[T], T]) -> SplitsOf[T]:
    """The same with every store changed when it is first used."""

    def changed(split: Split) -> Callable[[], T] | MissingSplit:
        source = splits._sources[split]
        return source if isinstance(source, MissingSplit) else lambda: change(splits.get(split))

    return SplitsOf(*(changed(split) for split in SPLITS))


def resolve_scheme(dataset: str, scheme: str) -> str:
    """The scheme that ``default`` stands for; any other name as it is.

    Raises:
        ConfigError: a data set that does not exist, or a scheme that it does not have.
    """
    if dataset not in SPLIT_SCHEMES:
        raise ConfigError(f"dataset {dataset!r} is unknown; choose one of {', '.join(SPLIT_SCHEMES)}")
    schemes = SPLIT_SCHEMES[dataset]
    if scheme == "default":
        return schemes[0]
    if scheme not in schemes:
        raise ConfigError(f"split scheme {scheme!r} does not exist for {dataset}; choose one of {', '.join(schemes)}")
    return scheme


def shuffled_classes(store: ImageStore, seed: int) -> torch.Tensor:
    """(K,) int64: the store's classes in an order that depends on ``seed`` alone."""
    return torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))


def by_ratio(names: list[str], shares: tuple[float, float, float], seed: int) -> dict[Split, list[str]]:
    """Classes (or tasks) shuffled by ``seed`` and cut; a share above 0 gets one at least, while there are any."""
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    counts = [max(1, round(share * len(names))) if share else 0 for share in shares]
    while sum(counts) > len(names):
        most = max(
            counts
        )  # where every split has one class, those to train on are needed most, then those to test with
        counts[counts.index(most) if most > 1 else 1 if counts[1] else 2] -= 1
    counts[0 if shares[0] else shares.index(max(shares))] += len(names) - sum(counts)
    ends = [sum(counts[: number + 1]) for number in range(len(counts))]
    return {
        part: [names[index] for index in order[end - count : end]]
        for part, count, end in zip(SPLITS, counts, ends, strict=True)
    }
