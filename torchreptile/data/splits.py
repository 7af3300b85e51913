"""Splits: the classes (or tasks) for meta-training, for choosing the checkpoint and for the final evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Literal, TypeVar, final

import torch

from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.image_store import ImageStore

SPLIT_SCHEMES: dict[str, tuple[str, ...]] = {
    "omniglot": ("reptile", "vinyals", "vinyals-rotated", "maml", "background-evaluation"),
    "glyphs": ("seed",),
    "mini-imagenet": ("ravi",),
    "folder": ("own",),
    "sine": ("drawn",),
    "sine-maml": ("drawn",),
    "table": ("own",),
}
"""The split schemes of the built-in data sets; the first one is what ``default`` means. Custom ones have ``own``."""

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class MissingSplit:
    """A split that does not exist, which is an error only when it is used.

    Attributes:
        reason: the message of that error.
    """

    reason: str


Source = ImageStore | Callable[[], ImageStore] | MissingSplit
"""The origin of a split: a store, a function that loads one on first use, or the reason why there is none."""


S = TypeVar("S", covariant=True)


@final
class SplitsOf(Generic[S]):
    """The three splits of a data set, which share no class or task.

    Each is loaded when it is first used, so one that is never used may be missing.

    Example:
        >>> splits: SplitsOf[str] = SplitsOf("training classes", MissingSplit("there is no validation"), lambda: "test")
        >>> splits.val is None, splits.test
        (True, 'test')
    """

    def __init__(
        self,
        train: S | Callable[[], S] | MissingSplit,
        val: S | Callable[[], S] | MissingSplit,
        test: S | Callable[[], S] | MissingSplit,
    ) -> None:
        """Store where the splits come from; nothing is loaded yet."""
        self._sources: dict[Split, S | Callable[[], S] | MissingSplit] = {"train": train, "val": val, "test": test}

    @cached_property
    def train(self) -> S:
        """The meta-training classes, with four rotations where the scheme has them."""
        return self._load("train")

    @cached_property
    def val(self) -> S | None:
        """The meta-validation classes, never rotated; None where there are none."""
        return self._load("val") if self.has("val") else None

    @cached_property
    def test(self) -> S:
        """The meta-test classes, never rotated."""
        return self._load("test")

    def has(self, split: Split) -> bool:
        """Return whether the split exists, without loading it."""
        return not isinstance(self._sources[split], MissingSplit)

    def get(self, split: Split) -> S:
        """Return the split of that name.

        Raises:
            DataError: the split is missing, or its data are damaged.
        """
        store: S | None = getattr(self, split)
        return self._load(split) if store is None else store

    def _load(self, split: Split) -> S:
        source = self._sources[split]
        if isinstance(source, MissingSplit):
            raise DataError(source.reason)
        return source() if callable(source) else source


Splits = SplitsOf[ImageStore]
"""The splits of a data set of images."""


T = TypeVar("T")


def mapped(splits: SplitsOf[T], change: Callable[[T], T]) -> SplitsOf[T]:
    """Return the splits with every store changed when it is first used."""

    def changed(split: Split) -> Callable[[], T] | MissingSplit:
        source = splits._sources[split]
        return source if isinstance(source, MissingSplit) else lambda: change(splits.get(split))

    return SplitsOf(*(changed(split) for split in SPLITS))


def resolve_scheme(dataset: str, scheme: str) -> str:
    """Return the split scheme that ``default`` stands for, or any other name as it is.

    Raises:
        ConfigError: the data set does not have the scheme.

    >>> resolve_scheme("omniglot", "default")
    'reptile'
    """
    schemes = SPLIT_SCHEMES.get(dataset, ("own",))
    if scheme == "default":
        return schemes[0]
    if scheme not in schemes:
        raise ConfigError(f"split scheme {scheme!r} does not exist for {dataset}; choose one of {', '.join(schemes)}")
    return scheme


def shuffled_classes(store: ImageStore, seed: int) -> torch.Tensor:
    """Return (K,) int64, the classes of the store in an order that depends only on ``seed``."""
    return torch.randperm(len(store), generator=torch.Generator().manual_seed(seed))


def by_ratio(names: list[str], shares: tuple[float, float, float], seed: int) -> dict[Split, list[str]]:
    """Shuffle classes (or tasks) and divide them into splits.

    Args:
        names: names of the classes.
        shares: shares of train, val and test; a share above 0 gets at least one class, while there are enough.
        seed: seed of the shuffle.

    >>> {split: len(names) for split, names in by_ratio(list("abcdefghij"), (0.6, 0.2, 0.2), seed=0).items()}
    {'train': 6, 'val': 2, 'test': 2}
    """
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    counts = [max(1, round(share * len(names))) if share else 0 for share in shares]
    while sum(counts) > len(names):
        most = max(counts)
        # Where every split has one class, training classes are needed most, then test classes.
        counts[counts.index(most) if most > 1 else 1 if counts[1] else 2] -= 1
    counts[0 if shares[0] else shares.index(max(shares))] += len(names) - sum(counts)
    ends = [sum(counts[: number + 1]) for number in range(len(counts))]
    return {
        part: [names[index] for index in order[end - count : end]]
        for part, count, end in zip(SPLITS, counts, ends, strict=True)
    }
