"""The folders for data sets and for the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pooch

from torchreptile.core.errors import ConfigError


def cache_dir() -> Path:
    """Return the folder for prepared data: ``$TORCHREPTILE_CACHE``, or the system's cache folder."""
    named = os.environ.get("TORCHREPTILE_CACHE")
    return expanded(named, "TORCHREPTILE_CACHE") if named else Path(pooch.os_cache("torchreptile"))


def data_dir() -> Path | None:
    """Return the user's folder of data sets, which are read in place: ``$TORCHREPTILE_DATA``, or None."""
    named = os.environ.get("TORCHREPTILE_DATA")
    return expanded(named, "TORCHREPTILE_DATA") if named else None


def expanded(named: str, setting: str) -> Path:
    """Return the path that a user named, with the home folder in place of ``~`` or ``~NAME``.

    Args:
        named: the path.
        setting: what names it, for the message.

    Raises:
        ConfigError: there is no such home folder.

    Example:
        >>> expanded("data/omniglot", "--data")
        PosixPath('data/omniglot')
    """
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        user = Path(named).parts[0]
        raise ConfigError(f"{setting} is {named}, but {user} is no user's home folder here; name the folder") from error
