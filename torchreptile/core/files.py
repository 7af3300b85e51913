"""Files that survive what happens to a process: atomic writes, reads of regular files only, no trace of killed writers.

Readers see the old content or the new, never a part of it. Nothing that is written follows a link.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MAX_TEXT_BYTES = 256 * 2**20  # settings, metrics, cards and results have kilobytes, the longest metrics some megabytes
MAX_TENSOR_BYTES = 64 * 2**30  # checkpoints and weights

_TEMPORARY = re.compile(r"\..+-\d+-[0-9a-f]{4,8}\.tmp", re.DOTALL)
_NO_LINK: int = getattr(os, "O_NOFOLLOW", 0)  # these flags are missing on Windows
_NOT_INHERITED: int = getattr(os, "O_CLOEXEC", 0)
_NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait for its writer
_KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}  # fmt: skip


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty temporary file in the folder of ``path``; on success, flush it to disk and move it to ``path``.

    On any failure the temporary file is removed and ``path`` is left as it was. While the file is written it is
    locked, so that :func:`remove_abandoned` knows it from the file of a process that was killed.

    >>> with replacing(Path("notes.txt")) as temporary:
    ...     _ = temporary.write_text("complete")
    >>> Path("notes.txt").read_text()
    'complete'
    """
    temporary, handle = _new_temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as file:  # a library may have replaced the file that was locked
            os.fsync(file.fileno())
        if os.name != "posix":  # elsewhere an open file cannot be moved
            os.close(handle)
            handle = -1
        os.replace(temporary, path)
        _sync_folder(path.parent)  # the new name must survive a power failure too
    finally:
        if handle >= 0:
            os.close(handle)
        temporary.unlink(missing_ok=True)


def _new_temporary(path: Path) -> tuple[Path, int]:
    """Make an empty, locked temporary file in the folder of ``path``; return it and its descriptor."""
    while True:
        temporary = path.with_name(_temporary_name(path.name))
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOT_INHERITED, 0o666)
        try:
            _try_lock(handle)
            if os.fstat(handle).st_nlink:
                return temporary, handle
        except BlockingIOError:
            pass
        os.close(handle)  # another process took it for abandoned before it was locked


def _temporary_name(name: str) -> str:
    """Return a new name for what will be called ``name``, short enough for any file system."""
    short = name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "ignore")
    return f".{short}-{os.getpid()}-{secrets.token_hex(4)}.tmp"


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
    """Return whether ``path`` has the name of a temporary file of :func:`replacing`.

    >>> is_temporary(Path("run/.last.pt-4711-0a1b2c3d.tmp")), is_temporary(Path("run/.mine.tmp"))
    (True, False)
    """
    return _TEMPORARY.fullmatch(path.name) is not None


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes left in ``folder``.

    Only regular files and folders with names of :func:`replacing` and :func:`working_folder` that belong to this user
    and that no living process has locked are removed. What cannot be removed is left.
    """
    try:
        found = [path for path in folder.iterdir() if is_temporary(path)]
    except OSError:
        return
    for path in found:
        with suppress(OSError):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: Path) -> None:
    """Remove one temporary file or folder unless a process has it locked or it belongs to another user."""
    handle = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT)
    try:
        status = os.fstat(handle)
        if os.name == "posix" and status.st_uid != os.geteuid():
            return
        if not _try_lock(handle) and os.name == "posix":
            return  # no locks on this file system: nobody knows whether its writer lives
        if stat.S_ISREG(status.st_mode):
            path.unlink()
        elif stat.S_ISDIR(status.st_mode):
            shutil.rmtree(path)
    finally:
        os.close(handle)


@contextmanager
def working_folder(folder: Path, name: str) -> Iterator[tuple[Path, int]]:
    """Yield a new locked folder in ``folder``, and its descriptor; it is removed at the end with all it holds.

    POSIX systems only. A folder that a killed process left behind is removed by :func:`remove_abandoned`.
    """
    path, handle = _new_folder(folder, name)
    try:
        yield path, handle
    finally:
        os.close(handle)
        shutil.rmtree(path, ignore_errors=True)


def _lock(handle: int) -> None:
    """Lock an open file or folder until it is closed, on POSIX systems; raise BlockingIOError if another has it."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _new_folder(folder: Path, name: str) -> tuple[Path, int]:
    """Make an empty, locked temporary folder in ``folder``; return it and its descriptor."""
    while True:
        path = folder / _temporary_name(name)
        path.mkdir(mode=0o700)
        try:
            handle = os.open(path, os.O_RDONLY | _NO_LINK)
        except FileNotFoundError:  # another process took it for abandoned before it was locked
            continue
        with suppress(OSError):
            _try_lock(handle)
            if os.path.samestat(path.lstat(), os.fstat(handle)):
                return path, handle
        os.close(handle)


def _try_lock(handle: int) -> bool:
    """Lock like :func:`_lock`; return False where the system or the file system has no locks."""
    try:
        _lock(handle)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return os.name == "posix"


def open_lock(path: Path) -> BinaryIO:
    """Open a lock file, made if it is missing, and lock it until it is closed; its content is left as it is.

    Raises:
        BlockingIOError: another process has it locked.
        OSError: it cannot be opened, or is a link or anything else but a regular file.
    """
    file = _opened(path, os.O_RDWR | os.O_CREAT | _NO_LINK, "r+b")
    try:
        _lock(file.fileno())
    except BaseException:
        file.close()
        raise
    return file


def open_for_append(path: Path) -> BinaryIO:
    """Open a regular file for reading and appending, made if it is missing; its content is left as it is.

    A file with several names (hard links) is copied first, so that nothing but ``path`` changes.

    Raises:
        OSError: it cannot be opened, or is a link or anything else but a regular file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _NO_LINK
    file = _opened(path, flags, "a+b")
    if os.fstat(file.fileno()).st_nlink > 1:
        with file:
            file.seek(0)
            write_bytes(path, file.read())
        file = _opened(path, flags, "a+b")
    return file


def open_regular(path: Path, at_most: int) -> BinaryIO:
    """Open a file to read it; links are followed, pipes and devices are refused instead of waited for.

    Args:
        path: the file.
        at_most: bytes that it may have.

    Raises:
        OSError: it cannot be opened, is not a regular file, or has more bytes.
    """
    file = _opened(path, os.O_RDONLY, "rb")
    size = os.fstat(file.fileno()).st_size
    if size > at_most:
        file.close()
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the {at_most:,} that such a file may have")
    return file


def read_regular(path: Path, at_most: int = MAX_TEXT_BYTES) -> bytes:
    """Return the content of a regular file of at most ``at_most`` bytes.

    Raises:
        OSError: as in :func:`open_regular`.
    """
    with open_regular(path, at_most) as file:
        return file.read(os.fstat(file.fileno()).st_size)


def read_text(path: Path) -> str:
    """Return the content of a regular file as text; the encoding is UTF-8.

    Raises:
        OSError: as in :func:`open_regular`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_regular(path).decode("utf-8")


def _opened(path: Path, flags: int, mode: str) -> BinaryIO:
    """Open a regular file with ``flags``; raise OSError with a specific message for anything else."""
    try:
        handle = os.open(path, flags | _NO_WAIT | _NOT_INHERITED | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link, and links are not followed here", str(path)) from error
        if error.errno == errno.ENXIO:  # a socket, or a pipe without a reader
            raise OSError(errno.ENXIO, "it is a pipe or a socket, not a file", str(path)) from error
        raise
    kind = stat.S_IFMT(os.fstat(handle).st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        number = errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL
        raise OSError(number, f"it is {_KINDS.get(kind, 'something else')}, not a file", str(path))
    return os.fdopen(handle, mode)  # type: ignore[return-value]


def free(path: Path) -> Path:
    """Return the path, or the first of NAME-2, NAME-3, ... that does not exist where it is taken."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically; the encoding is UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
