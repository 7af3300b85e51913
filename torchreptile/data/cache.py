"""Where prepared data live, and how they get there exactly once."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pooch
from safetensors import SafetensorError

from torchreptile.data.store import ImageStore
from torchreptile.errors import DataError


def cache_dir() -> Path:
    """The folder for prepared data: ``$TORCHREPTILE_CACHE``, else the system's place for caches."""
    named = os.environ.get("TORCHREPTILE_CACHE")
    return Path(named).expanduser() if named else Path(pooch.os_cache("torchreptile"))


def data_dir() -> Path | None:
    """The user's own folder of data sets, read in place: ``$TORCHREPTILE_DATA``, or None."""
    named = os.environ.get("TORCHREPTILE_DATA")
    return Path(named).expanduser() if named else None


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
