"""Custom data sets: a user's function that returns images by class, an ImageStore or Splits."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import ConfigError, DataError, TorchReptileError
from torchreptile.core.user_code import described, load_from_file
from torchreptile.data.dataset_table import dataset_function, register_dataset
from torchreptile.data.image_store import ImageStore
from torchreptile.data.splits import MissingSplit, Split, Splits, SplitsOf, by_ratio, resolve_scheme


def use_dataset_file(named: str) -> str:
    """Register a data set by its ``FILE.py:FUNCTION``.

    The file is run as Python code, so it must be one that you trust.

    Returns:
        The name of the data set, ``FILE.py:FUNCTION`` with the absolute path.

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

    Classes that its function does not divide are divided by ``split_ratio`` and ``split_seed``.

    Raises:
        ConfigError: the data set or its split scheme is unknown, or the shape of its images differs from the settings.
        DataError: its function fails, or returns no images.
    """
    name = task.dataset
    function = dataset_function(name)
    resolve_scheme(name, task.split_scheme)
    try:
        found = function()
    except TorchReptileError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise DataError(f"dataset {name}: its function fails ({described(error)})") from error
    if isinstance(found, Mapping):
        found = ImageStore.from_arrays(found, name, series=len(task.image_shape) == 2)
    if isinstance(found, ImageStore):
        found = _divided(found, task)
    if not isinstance(found, SplitsOf):
        raise DataError(
            f"dataset {name}: its function returned a {type(found).__name__}; it must return images by class, an "
            "ImageStore, or Splits"
        )
    shape = found.train.image_shape
    if shape != task.image_shape:
        square = len(shape) == 3 and shape[0] in (1, 3) and shape[1] == shape[2]
        grey = "--grey " if shape[0] == 1 else ""
        wanted = f"{grey}--image-size {shape[1]}" if square else f"--shape {'x'.join(map(str, shape))}"
        series = shape[1:] if len(shape) == 3 and shape[0] == 1 and not square else ()
        wanted += f", or --shape {'x'.join(map(str, series))} if they are series" if series else ""
        raise ConfigError(
            f"dataset {name} has images of shape {shape}, but the settings say {task.image_shape}; give {wanted}"
        )
    return found


def _divided(store: ImageStore, task: TaskConfig) -> Splits:
    """Divide the classes by ``split_ratio`` and ``split_seed``."""
    parts = by_ratio(sorted(store.class_names), task.shares, task.split_seed)
    places = {name: place for place, name in enumerate(store.class_names)}

    def part(split: Split) -> ImageStore | MissingSplit:
        if not parts[split]:
            return MissingSplit(f"dataset {task.dataset}: split_ratio leaves no classes for {split}")
        return store.select([places[name] for name in parts[split]])

    return Splits(part("train"), part("val"), part("test"))
