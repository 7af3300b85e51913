"""The files of a data set: the user's own copy if there is one, or a verified download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from torchreptile.core.errors import DataError
from torchreptile.core.paths import cache_dir, data_dir


@dataclass(frozen=True)
class RemoteFile:
    """One published file.

    Attributes:
        name: name of the file on disk.
        url: address of the download.
        md5: published checksum of the download, 32 hexadecimal digits.
    """

    name: str
    url: str
    md5: str


def fetch(dataset: str, files: Sequence[RemoteFile]) -> list[Path]:
    """Find or download files.

    A file in ``$TORCHREPTILE_DATA/<dataset>/`` is used as it is; the caller checks its contents. Otherwise it is
    downloaded once into ``<cache>/<dataset>/``, and its MD5 is checked on every use.

    Returns:
        The paths of ``files``, in their order.

    Raises:
        DataError: a download failed; the message explains how to provide the files by hand.
    """
    return [_own_copy(dataset, file) or _download(dataset, file, files) for file in files]


def _own_copy(dataset: str, file: RemoteFile) -> Path | None:
    """Return the user's copy of a file, if there is one."""
    folder = data_dir()
    path = folder / dataset / file.name if folder else None
    return path if path and path.is_file() else None


def _download(dataset: str, file: RemoteFile, files: Sequence[RemoteFile]) -> Path:
    """Return the cached download of a file, made on first use."""
    # pooch writes to a temporary file in the same folder and renames it once the MD5 is right, so an interrupted
    # download is never mistaken for a complete one; an existing file with another MD5 is downloaded again.
    folder = cache_dir() / dataset
    try:
        return Path(pooch.retrieve(file.url, known_hash=f"md5:{file.md5}", fname=file.name, path=folder))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors, a wrong MD5 is a ValueError
        raise DataError(_by_hand(dataset, file, files, error)) from error


def _by_hand(dataset: str, file: RemoteFile, files: Sequence[RemoteFile], error: Exception) -> str:
    """Return, in one line, how to provide a data set by hand when ``file`` cannot be downloaded."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    own = data_dir()
    absent = f"; TORCHREPTILE_DATA is set, but {own / dataset / file.name} does not exist" if own else ""
    sources = " and ".join(f"{each.url} (MD5 {each.md5})" for each in files)
    places = " and ".join(f"DIR/{dataset}/{each.name}" for each in files)
    return (
        f"{dataset}: cannot download {file.name} ({reason}){absent}; "
        f"fetch {sources}, put them at {places}, and set TORCHREPTILE_DATA=DIR"
    )
