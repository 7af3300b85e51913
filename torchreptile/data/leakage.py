"""Identical images: a known flaw of published data sets, and a leak where they are in two splits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import torch

from torchreptile.core.errors import DataError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.splits import SPLITS, Split, Splits

EXAMPLES = 3  # leaks named in a message


@dataclass(frozen=True)
class Leak:
    """One image that is in two splits.

    Attributes:
        split: the earlier split, in the order train, val, test.
        image: index of the image in the store of that split.
        class_name: class of the image in that split.
        other_split: the later split.
        other_class: class of the first identical image there.
    """

    split: Split
    image: int
    class_name: str
    other_split: Split
    other_class: str


@dataclass(frozen=True)
class Leaks:
    """The images that are in two splits.

    Attributes:
        found: every image of an earlier split that is also in a later one, once per later split.
        unread: the reasons why splits could not be compared; training does not require the test classes.
    """

    found: tuple[Leak, ...]
    unread: tuple[str, ...] = ()

    @property
    def trained_on(self) -> list[int]:
        """Indices of the training images that are also in validation or test classes, sorted, each once."""
        return sorted({leak.image for leak in self.found if leak.split == "train"})

    def message(self, excluded: bool) -> str:
        """Return the leaks as one line of text; empty if there are none.

        Args:
            excluded: whether the images are left out of training.
        """
        parts = [f"not compared with the other splits: {reason}" for reason in self.unread]
        if self.found:
            examples = ", ".join(
                f"{leak.split} {leak.class_name} = {leak.other_split} {leak.other_class}"
                for leak in self.found[:EXAMPLES]
            )
            more = ", ..." if len(self.found) > EXAMPLES else ""
            number = len(self.trained_on)
            remedy = (
                f"{number:,} left out of training" if excluded else "--exclude-duplicates leaves them out of training"
            )
            parts.append(
                f"{len(self.found):,} identical pictures in two splits ({examples}{more})"
                + (f"; {remedy}" if number else "")
            )
        return "; ".join(parts)


def find_duplicates(store: ImageStore) -> list[tuple[int, int]]:
    """Find the pairs of images with identical pixels.

    Returns:
        Indices (i, j) into ``store.images`` with i < j, sorted.

    Example:
        >>> images = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
        >>> images[1] = 255
        >>> find_duplicates(ImageStore(images, torch.tensor([2, 1]), ("a", "b"), "three"))
        [(0, 2)]
    """
    same: dict[bytes, list[int]] = {}
    for index, digest in enumerate(_digests(store)):
        same.setdefault(digest, []).append(index)
    return sorted(pair for indices in same.values() for pair in combinations(indices, 2))


def find_leaks(splits: Splits) -> Leaks:
    """Find the images whose pixels are identical in two splits, in one pass over all splits.

    Training classes are compared as they are trained on, with their rotations.

    Raises:
        DataError: the training classes cannot be read.
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
        # Most data sets share no images; then there is no need to look up classes.
        if shared := seen[split].keys() & seen[other].keys():
            these, those = _classes_of_images(one), _classes_of_images(two)
            found += [
                Leak(split, image, one.class_names[these[image]], other, two.class_names[those[seen[other][digest]]])
                for image, digest in enumerate(_digests(one))
                if digest in shared
            ]
    return Leaks(tuple(found), tuple(unread))


def without_leaks(train: ImageStore, leaks: Leaks) -> ImageStore:
    """Return the training classes without the images that are also in validation or test classes.

    Raises:
        DataError: a class would be left without images.
    """
    duplicates = leaks.trained_on
    rest = train.without(duplicates) if duplicates else train
    empty = [name for name, size in zip(rest.class_names, rest.class_sizes.tolist(), strict=True) if not size]
    if empty:
        raise DataError(
            f"{train.name}: every image of the training {'class' if len(empty) == 1 else 'classes'} "
            f"{', '.join(empty)} is also in validation or test classes; remove it, or train without "
            "--exclude-duplicates"
        )
    return rest


def _digests(store: ImageStore) -> Iterator[bytes]:
    """Yield the SHA-256 of every image; 48,000 images of 3 x 84 x 84 take a second."""
    for image in store.images.cpu().numpy():
        yield hashlib.sha256(image.tobytes()).digest()


def _first_of_each(store: ImageStore) -> dict[bytes, int]:
    """Map each digest to the index of the first image that has it."""
    first: dict[bytes, int] = {}
    for index, digest in enumerate(_digests(store)):
        first.setdefault(digest, index)
    return first


def _classes_of_images(store: ImageStore) -> list[int]:
    """Return the class index of every image."""
    classes: list[int] = torch.arange(len(store)).repeat_interleave(store.class_sizes.cpu()).tolist()
    return classes
