"""Splits: which classes are trained on, which choose the checkpoint and which are only ever measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torchreptile.data.store import ImageStore
from torchreptile.errors import ConfigError

SPLIT_SCHEMES: dict[str, tuple[str, ...]] = {
    "omniglot": ("reptile", "vinyals", "background-evaluation"),
    "glyphs": ("seed",),
}
"""The schemes of every data set; the first one is what ``default`` means."""

GLYPHS_VAL, GLYPHS_TEST = 100, 300


@dataclass(frozen=True, eq=False)
class Splits:
    """Three stores that share no character.

    Attributes:
        train: meta-training classes, with the four rotations where the scheme has them.
        val: meta-validation classes, never rotated; None where the scheme has none.
        test: meta-test classes, never rotated.
    """

    train: ImageStore
    val: ImageStore | None
    test: ImageStore


def load_splits(dataset: str, scheme: str, seed: int) -> Splits:
    """Load ``dataset`` and split it by ``scheme``; ``seed`` matters to the schemes that shuffle.

    Raises:
        ConfigError: an unknown data set, or a scheme that this data set does not have.
        DataError: the data are missing, damaged or cannot be downloaded.
    """
    scheme = resolve_scheme(dataset, scheme)
    if dataset == "omniglot":
        from torchreptile.data import omniglot

        return omniglot.split(omniglot.load(), scheme, seed)
    from torchreptile.data import glyphs

    return _split_glyphs(glyphs.load(), seed)


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
