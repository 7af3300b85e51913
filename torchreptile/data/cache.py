"""Where prepared data live, and how they get there exactly once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from safetensors import SafetensorError

from torchreptile.core.errors import DataError
from torchreptile.core.paths import cache_dir
from torchreptile.data.image_store import ImageStore


def prepared(file_name: str, prepare: Callable[[], ImageStore]) -> ImageStore:
    """The store cached as ``file_name``, made by ``prepare`` on first use.

    A damaged cache file is made again. Two processes that prepare at once both succeed: each writes a
    temporary file of its own and renames it into place, and their contents are equal.
    """
    path = cache_dir() / file_name
    if path.is_file():
        with suppress(DataError):
            return ImageStore.load(path)
    store = prepare()
    try:
        store.save(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot write {path} ({error}); set TORCHREPTILE_CACHE to a folder that can") from error
    return ImageStore.load(path)
