"""The folders for data sets and for the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pooch


def cache_dir() -> Path:
    """Return the folder for prepared data: ``$TORCHREPTILE_CACHE``, or the system's cache folder."""
    named = os.environ.get("TORCHREPTILE_CACHE")
    return Path(named).expanduser() if named else Path(pooch.os_cache("torchreptile"))


def data_dir() -> Path | None:
    """Return the user's folder of data sets, which are read in place: ``$TORCHREPTILE_DATA``, or None."""
    named = os.environ.get("TORCHREPTILE_DATA")
    return Path(named).expanduser() if named else None
