"""The cache of prepared data sets: each is prepared once and read from a file afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from safetensors import SafetensorError

from torchreptile.core.errors import DataError
from torchreptile.core.files import remove_abandoned
from torchreptile.core.paths import cache_dir
from torchreptile.data.image_store import ImageStore


def prepared(file_name: str, prepare: Callable[[], ImageStore], fingerprint: str = "") -> ImageStore:
    """Load the store cached as ``file_name``; on first use, make it by ``prepare`` and save it.

    A damaged cache file is made again. Two processes that prepare it at the same time both succeed: each writes its own
    temporary file and renames it into place, and the contents are equal. What killed processes left in the cache is
    removed.

    Args:
        file_name: name of the file in the cache.
        prepare: makes the store.
        fingerprint: what a cached store must have; empty where that is not known.

    Raises:
        DataError: the cache cannot be written.
    """
    path = cache_dir() / file_name
    remove_abandoned(path.parent)
    if path.is_file():
        with suppress(DataError):
            store = ImageStore.load(path)
            if fingerprint in ("", store.fingerprint):
                return store
    store = prepare()
    try:
        store.save(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot write {path} ({error}); set TORCHREPTILE_CACHE to a writable folder") from error
    return ImageStore.load(path)
