"""Data sets: each module here turns one source of images into an :class:`ImageStore`."""

from torchreptile.data.splits import SPLIT_SCHEMES, Splits, load_splits
from torchreptile.data.store import ImageStore

__all__ = ["SPLIT_SCHEMES", "ImageStore", "Splits", "load_splits"]
