"""Atomic file writes: readers see the old content or the new, never a part of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success, flush it to disk and move it to ``path``.

    On any failure the temporary file is removed and ``path`` is left as it was.

    >>> with replacing(Path("notes.txt")) as temporary:
    ...     _ = temporary.write_text("complete")
    >>> Path("notes.txt").read_text()
    'complete'
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)  # the new name must survive a power failure too
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_temporary(path: Path) -> bool:
    """Return whether ``path`` is a temporary file that a killed process left behind in :func:`replacing`."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def free(path: Path) -> Path:
    """Return the path, or the first of NAME-2, NAME-3, ... that does not exist where it is taken."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically; the encoding is UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
