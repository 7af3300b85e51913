"""Data sets: each module here turns one source of images into an :class:`ImageStore`."""

from torchreptile.data.splits import SPLIT_SCHEMES, Absent, Splits, load_splits
from torchreptile.data.store import ImageStore

__all__ = ["SPLIT_SCHEMES", "Absent", "ImageStore", "Splits", "load_splits"]
