"""Identical pictures: known flaws of published data sets, and leaks when they lie across a split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch

from torchreptile.core.errors import DataError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.splits import SPLITS, Split, Splits

EXAMPLES = 3  # named in a message


@dataclass(frozen=True)
class Leak:
    """One picture in two splits.

    Attributes:
        split, image, class_name: the earlier split (in the order train, val, test), the index into its store's
            images, and the class.
        other_split, other_class: where it is too; the first such image.
    """

    split: Split
    image: int
    class_name: str
    other_split: Split
    other_class: str


@dataclass(frozen=True)
class Leaks:
    """What is in two splits.

    Attributes:
        found: every image of an earlier split that is also in a later one, once per later split.
        unread: why a split could not be compared; training does not need the test classes to be there.
    """

    found: tuple[Leak, ...]
    unread: tuple[str, ...] = ()

    @property
    def trained_on(self) -> list[int]:
        """Indices of the training images that are also in validation or test classes, in order, each once."""
        return sorted({leak.image for leak in self.found if leak.split == "train"})

    def message(self, excluded: bool) -> str:
        """One line for people, empty if there is nothing to say; ``excluded``: left out of training."""
        parts = [f"not compared with the other splits: {reason}" for reason in self.unread]
        if self.found:
            examples = ", ".join(
                f"{leak.split} {leak.class_name} = {leak.other_split} {leak.other_class}"
                for leak in self.found[:EXAMPLES]
            )
            more = ", ..." if len(self.found) > EXAMPLES else ""
            number = len(self.trained_on)
            cure = (
                f"{number:,} left out of training" if excluded else "--exclude-duplicates leaves them out of training"
            )
            parts.append(
                f"{len(self.found):,} identical pictures in two splits ({examples}{more})"
                + (f"; {cure}" if number else "")
            )
        return "; ".join(parts)


def find_duplicates(store: ImageStore) -> list[tuple[int, int]]:
    """Every pair of images with identical pixels, as indices (i, j) into ``store.images`` with i < j, sorted."""
    same: dict[bytes, list[int]] = {}
    for index, digest in enumerate(_digests(store)):
        same.setdefault(digest, []).append(index)
    return sorted(pair for indices in same.values() for pair in combinations(indices, 2))


def find_leaks(splits: Splits) -> Leaks:
    """Every picture that is in two splits, pixel by pixel, in one pass over all of them.

    Training classes are compared as they are trained on, so with their rotations.
    """
    stores: dict[Split, ImageStore] = {}
    unread: list[str] = []
    for split in SPLITS:
        try:
            stores |= {split: splits.get(split)} if splits.has(split) else {}
        except DataError as error:
            if split == "train":
                raise
            unread.append(str(error))
    seen = {split: _first_of_each(store) for split, store in stores.items()}
    found: list[Leak] = []
    for split, other in combinations(stores, 2):
        one, two = stores[split], stores[other]
        # Most data sets share nothing; then the indices of the images need not be looked at.
        if shared := seen[split].keys() & seen[other].keys():
            ours, theirs = _owners(one), _owners(two)
            found += [
                Leak(split, image, one.class_names[ours[image]], other, two.class_names[theirs[seen[other][digest]]])
                for image, digest in enumerate(_digests(one))
                if digest in shared
            ]
    return Leaks(tuple(found), tuple(unread))


def without_leaks(train: ImageStore, leaks: Leaks) -> ImageStore:
    """The training classes without the images that are also in validation or test classes.

    Raises:
        DataError: a class has no image left.
    """
    gone = leaks.trained_on
    left = train.without(gone) if gone else train
    empty = [name for name, size in zip(left.class_names, left.class_sizes.tolist(), strict=True) if not size]
    if empty:
        raise DataError(
            f"{train.name}: every image of the training {'class' if len(empty) == 1 else 'classes'} "
            f"{', '.join(empty)} is also in validation or test classes; remove it, or train without "
            "--exclude-duplicates"
        )
    return left


def _digests(store: ImageStore) -> Iterator[bytes]:
    """SHA-256 of every image; 48,000 of 3 x 84 x 84 take a second."""
    for image in store.images.cpu().numpy():
        yield hashlib.sha256(image.tobytes()).digest()


def _first_of_each(store: ImageStore) -> dict[bytes, int]:
    """Digest -> the index of the first image that has it."""
    first: dict[bytes, int] = {}
    for index, digest in enumerate(_digests(store)):
        first.setdefault(digest, index)
    return first


def _owners(store: ImageStore) -> list[int]:
    """The class of every image."""
    owners: list[int] = torch.arange(len(store)).repeat_interleave(store.class_sizes.cpu()).tolist()
    return owners
