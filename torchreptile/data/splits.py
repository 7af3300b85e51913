"""Splits: which classes (or tasks) are trained on, which choose the checkpoint and which are only ever measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, final

import torch

from torchreptile.config import TaskConfig
from torchreptile.data.store import ImageStore
from torchreptile.errors import ConfigError, DataError

if TYPE_CHECKING:
    from torchreptile.data.sines import Sines
    from torchreptile.data.tables import Tables

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

GLYPHS_VAL, GLYPHS_TEST = 100, 300


Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Absent:
    """A split that is not there, which is no error until it is used; ``reason`` is the message of that error."""

    reason: str


Source = ImageStore | Callable[[], ImageStore] | Absent
"""Where a split comes from: a store, what loads one when it is first used, or why there is none."""


S = TypeVar("S", covariant=True)


@final
class SplitsOf(Generic[S]):
    """Stores that share no class or task, each loaded when it is first used: one that is never used may be absent."""

    def __init__(
        self, train: S | Callable[[], S] | Absent, val: S | Callable[[], S] | Absent, test: S | Callable[[], S] | Absent
    ) -> None:
        """Nothing is loaded yet."""
        self._sources: dict[Split, S | Callable[[], S] | Absent] = {"train": train, "val": val, "test": test}

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
        return not isinstance(self._sources[split], Absent)

    def get(self, split: Split) -> S:
        """The split of that name.

        Raises:
            DataError: it is absent, or its data are damaged.
        """
        store: S | None = getattr(self, split)
        return self._load(split) if store is None else store

    def _load(self, split: Split) -> S:
        source = self._sources[split]
        if isinstance(source, Absent):
            raise DataError(source.reason)
        return source() if callable(source) else source


Splits = SplitsOf[ImageStore]


T = TypeVar("T")


def mapped(splits: SplitsOf[T], change: Callable[[T], T]) -> SplitsOf[T]:
    """The same with every store changed when it is first used."""

    def changed(split: Split) -> Callable[[], T] | Absent:
        source = splits._sources[split]
        return source if isinstance(source, Absent) else lambda: change(splits.get(split))

    return SplitsOf(*(changed(split) for split in SPLITS))


def load_splits(task: TaskConfig) -> Splits:
    """The data set of ``task``, divided by its scheme; its split seed matters to the schemes that shuffle.

    With ``task.inverted`` the stores hold inverted images, which is what the learner sees.

    Raises:
        ConfigError: an unknown data set, or a scheme that this data set does not have.
        DataError: the data are missing, damaged or cannot be downloaded.
    """
    splits = _load_splits(task)
    return mapped(splits, ImageStore.inverted) if task.inverted else splits


def require_split(task: TaskConfig, split: Split) -> None:
    """Find out before anything is trained whether there will be something to measure on.

    Raises:
        DataError: the split is not there, or its data are damaged.
    """
    if task.regression:
        load_functions(task).get(split)
        return
    splits = load_splits(task)
    try:
        splits.get(split)
    except DataError as error:
        other = "; --split val measures on validation classes" if split == "test" and splits.has("val") else ""
        raise DataError(f"{error}{other}") from error


def _load_splits(task: TaskConfig) -> Splits:
    scheme = resolve_scheme(task.dataset, task.split_scheme)
    if task.dataset == "omniglot":
        from torchreptile.data import omniglot

        return omniglot.split(omniglot.load(), scheme, task.split_seed)
    if task.dataset == "mini-imagenet":
        from torchreptile.data import mini_imagenet

        return mini_imagenet.split(task.data_root, "nearest" if task.resize == "auto" else task.resize)
    if task.dataset == "folder":
        from torchreptile.data import folder

        return folder.split(task)
    from torchreptile.data import glyphs

    return _split_glyphs(glyphs.load(), task.split_seed)


def load_functions(task: TaskConfig) -> SplitsOf[Sines | Tables]:
    """The functions of ``task``: every split of sine waves draws new ones; tables are divided by tasks.

    Raises:
        DataError: the tables cannot be used.
    """
    resolve_scheme(task.dataset, task.split_scheme)
    if task.table:
        from torchreptile.data import tables

        return tables.split(task)
    from torchreptile.data.sines import sines

    waves = sines(task.dataset)
    return SplitsOf(waves, waves, waves)


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


def _split_glyphs(store: ImageStore, seed: int) -> Splits:
    order = shuffled_classes(store, seed)
    test_start = len(store) - GLYPHS_TEST
    val_start = test_start - GLYPHS_VAL
    return Splits(
        train=store.select(order[:val_start]).with_rotations(),
        val=store.select(order[val_start:test_start]),
        test=store.select(order[test_start:]),
    )
