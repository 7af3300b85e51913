"""Identical pictures: known flaws of published data sets, and leaks when they lie across a split."""

from __future__ import annotations

import hashlib
from itertools import combinations

from torchreptile.data.store import ImageStore


def find_duplicates(store: ImageStore) -> list[tuple[int, int]]:
    """Every pair of images with identical pixels, as indices (i, j) into ``store.images`` with i < j, sorted."""
    same: dict[bytes, list[int]] = {}
    for index, image in enumerate(store.images.cpu().numpy()):
        same.setdefault(hashlib.sha256(image.tobytes()).digest(), []).append(index)
    return sorted(pair for indices in same.values() for pair in combinations(indices, 2))
