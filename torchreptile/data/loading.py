"""Load the data set that the settings name, divided into splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import DataError
from torchreptile.data.image_store import ImageStore

if TYPE_CHECKING:
    from torchreptile.data.functions.sine import Sines
    from torchreptile.data.functions.tables import Tables
from torchreptile.data.splits import Split, Splits, SplitsOf, mapped, resolve_scheme, shuffled_classes

GLYPHS_VAL, GLYPHS_TEST = 100, 300


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
        from torchreptile.data.omniglot import dataset as omniglot

        return omniglot.split(omniglot.load(), scheme, task.split_seed)
    if task.dataset == "mini-imagenet":
        from torchreptile.data.mini_imagenet import dataset as mini_imagenet

        return mini_imagenet.split(task.data_root, "nearest" if task.resize == "auto" else task.resize)
    if task.dataset == "folder":
        from torchreptile.data.own_images import dataset as folder

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
        from torchreptile.data.functions import tables

        return tables.split(task)
    from torchreptile.data.functions.sine import sines

    waves = sines(task.dataset)
    return SplitsOf(waves, waves, waves)


def _split_glyphs(store: ImageStore, seed: int) -> Splits:
    order = shuffled_classes(store, seed)
    test_start = len(store) - GLYPHS_TEST
    val_start = test_start - GLYPHS_VAL
    return Splits(
        train=store.select(order[:val_start]).with_rotations(),
        val=store.select(order[val_start:test_start]),
        test=store.select(order[test_start:]),
    )
