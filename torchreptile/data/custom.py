"""Data sets of the user's own: a function that returns images by class, an ImageStore or splits of them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import ConfigError, DataError, TorchReptileError
from torchreptile.core.user_code import described, load_from_file
from torchreptile.data.dataset_table import dataset_function, register_dataset
from torchreptile.data.image_store import ImageStore
from torchreptile.data.splits import MissingSplit, Split, Splits, SplitsOf, by_ratio


def use_dataset_file(named: str) -> str:
    """Register the function that ``FILE.py:FUNCTION`` names, and return the data set's name: that, with the whole path.

    The file is run as Python code: name only one you trust.

    Raises:
        ConfigError: there is no such file or function, or the file fails.
    """
    found = load_from_file("dataset", named)
    assert callable(found)
    name = os.path.abspath(named)
    register_dataset(name, found)
    return name


def custom_splits(task: TaskConfig) -> Splits:
    """Return the splits of the custom data set that ``task`` names.

    Classes that come undivided are divided by ``split_ratio`` and ``split_seed``.

    Raises:
        ConfigError: no such data set is known, or its images have another shape than the settings say.
        DataError: its function fails, or returns no images.
    """
    name = task.dataset
    function = dataset_function(name)
    try:
        found = function()
    except TorchReptileError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise DataError(f"dataset {name}: its function fails ({described(error)})") from error
    if isinstance(found, Mapping):
        found = ImageStore.from_arrays(found, name)
    if isinstance(found, ImageStore):
        found = _divided(found, task)
    if not isinstance(found, SplitsOf):
        raise DataError(
            f"dataset {name}: its function returned a {type(found).__name__}; it must return images by class, an "
            "ImageStore, or Splits"
        )
    shape = found.train.image_shape
    if shape != task.image_shape:
        grey = "--grey " if shape[0] == 1 else ""
        wanted = f"{grey}--image-size {shape[1]}" if shape[1] == shape[2] else "square images"
        raise ConfigError(
            f"dataset {name} has images of shape {shape}, but the settings say {task.image_shape}; give {wanted}"
        )
    return found


def _divided(store: ImageStore, task: TaskConfig) -> Splits:
    parts = by_ratio(sorted(store.class_names), task.shares, task.split_seed)
    places = {name: place for place, name in enumerate(store.class_names)}

    def part(split: Split) -> ImageStore | MissingSplit:
        if not parts[split]:
            return MissingSplit(f"dataset {task.dataset}: split_ratio leaves no classes for {split}")
        return store.select([places[name] for name in parts[split]])

    return Splits(part("train"), part("val"), part("test"))
