"""Where data sets are looked for, and where what is made of them is kept."""

from __future__ import annotations

import os
from pathlib import Path

import pooch


def cache_dir() -> Path:
    """The folder for prepared data: ``$TORCHREPTILE_CACHE``, else the system's place for caches."""
    named = os.environ.get("TORCHREPTILE_CACHE")
    return Path(named).expanduser() if named else Path(pooch.os_cache("torchreptile"))


def data_dir() -> Path | None:
    """The user's own folder of data sets, read in place: ``$TORCHREPTILE_DATA``, or None."""
    named = os.environ.get("TORCHREPTILE_DATA")
    return Path(named).expanduser() if named else None
