"""Loading of the data set that the settings name, divided into splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import DataError
from torchreptile.data.custom import custom_splits
from torchreptile.data.image_store import ImageStore
from torchreptile.data.splits import Split, Splits, SplitsOf, mapped, resolve_scheme, shuffled_classes

if TYPE_CHECKING:
    from torchreptile.data.functions.sine import Sines
    from torchreptile.data.functions.tables import Tables

GLYPHS_VAL, GLYPHS_TEST = 100, 300  # classes


def load_splits(task: TaskConfig) -> Splits:
    """Load the data set of ``task``, divided into splits by ``task.split_scheme``.

    Schemes that shuffle depend on ``task.split_seed``. With ``task.inverted`` the stores hold inverted images.

    Raises:
        ConfigError: the data set is unknown, or does not have the scheme.
        DataError: the data are missing, damaged or cannot be downloaded.

    Example:
        >>> splits = load_splits(TaskConfig(dataset="glyphs"))
        >>> len(splits.train), len(splits.val), len(splits.test)  # training classes in four rotations
        (6400, 100, 300)
    """
    splits = _load_splits(task)
    return mapped(splits, ImageStore.inverted) if task.inverted else splits


def require_split(task: TaskConfig, split: Split) -> None:
    """Check, before anything is trained, that the split for the evaluation exists.

    Raises:
        DataError: the split is missing, or its data are damaged.
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
    """Load the splits as the data set has them, not inverted."""
    if task.custom:
        return custom_splits(task)
    scheme = resolve_scheme(task.dataset, task.split_scheme)
    if task.dataset == "omniglot":
        from torchreptile.data import omniglot

        return omniglot.split(omniglot.load(), scheme, task.split_seed)
    if task.dataset == "mini-imagenet":
        from torchreptile.data import mini_imagenet

        return mini_imagenet.split(task.data_root, "nearest" if task.resize == "auto" else task.resize)
    if task.dataset == "folder":
        from torchreptile.data import own_images

        return own_images.split(task)
    from torchreptile.data import glyphs

    return _split_glyphs(glyphs.load(), task.split_seed)


def load_functions(task: TaskConfig) -> SplitsOf[Sines | Tables]:
    """Load the functions of ``task``: each split of sine waves draws new ones; tables are divided by tasks.

    Raises:
        ConfigError: the data set is unknown, or does not have the split scheme.
        DataError: the tables cannot be used.
    """
    resolve_scheme(task.dataset, task.split_scheme)
    if task.table:
        from torchreptile.data.functions import tables

        return tables.split(task)
    from torchreptile.data.functions.sine import sines

    waves = sines(task.dataset)
    return SplitsOf(waves, waves, waves)


def _split_glyphs(store: ImageStore, seed: int) -> Splits:
    """Divide the generated characters at random; training classes get their four rotations."""
    order = shuffled_classes(store, seed)
    test_start = len(store) - GLYPHS_TEST
    val_start = test_start - GLYPHS_VAL
    return Splits(
        train=store.select(order[:val_start]).with_rotations(),
        val=store.select(order[val_start:test_start]),
        test=store.select(order[test_start:]),
    )
