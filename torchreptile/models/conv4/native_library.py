"""The C++ library of the native execution: compiled for this machine on first use, cached, verified and loaded.

Loading a library runs its code, so it is stored in a folder that belongs to the user and that nobody else may enter,
and what is loaded are the very bytes that were verified, never what a path leads to a moment later. The file ends in a
checksum of its content: a truncated library is compiled again instead of crashing the process.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from torchreptile.core.errors import first_line
from torchreptile.core.files import open_regular, remove_abandoned, replacing
from torchreptile.core.paths import cache_dir
from torchreptile.models.conv4 import native_compiler
from torchreptile.models.conv4.native_compiler import MAX_LIBRARY_BYTES, NativeUnavailableError

DIGEST = 32  # bytes of a SHA-256


def native_library() -> ctypes.CDLL:
    """Return the C++ library, compiled first if it is not in the cache.

    Raises:
        NativeUnavailableError: it cannot be compiled or loaded on this machine.
    """
    found = _library_or_reason()
    if isinstance(found, str):
        raise NativeUnavailableError(found)
    return found[0]


def native_library_key() -> str:
    """Return the hash of the source, the compiler and the processor's features that names the loaded library.

    Raises:
        NativeUnavailableError: there is no library.
    """
    native_library()
    return _library_or_reason()[1]


@cache
def _library_or_reason() -> tuple[ctypes.CDLL, str] | str:
    """Return the library and its key, or why there is none; tried once, because failing may take minutes."""
    if os.name != "posix":
        return "it needs Linux or macOS"
    try:
        file, code = _library(_own_folder())
        return _loaded(code), file.stem.removeprefix("conv4-")
    except (OSError, NativeUnavailableError) as error:
        return first_line(error)


def _own_folder() -> Path:
    """Return this user's folder in the cache, which may be shared: nobody should run what others put there."""
    return _private_folder(cache_dir() / f"native-{os.geteuid()}")


def _private_folder(folder: Path) -> Path:
    """Make ``folder`` if it is missing, and refuse it if anyone else may enter it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NativeUnavailableError(f"{folder} must be a folder that you own and nobody else can enter; delete it")
    return folder


def _library(folder: Path) -> tuple[Path, bytes]:
    """Return the library's file and its code, compiled by the first compiler that works unless it is in the cache."""
    remove_abandoned(folder)
    obstacles: list[str] = []
    for compiler, library in _libraries(folder, obstacles):
        try:
            return library, _verified(library) or _compiled(compiler, library)
        except NativeUnavailableError as error:
            obstacles.append(str(error))
    raise NativeUnavailableError("; ".join(obstacles) or "no C++ compiler: neither $CXX nor g++ nor clang++")


def _libraries(folder: Path, obstacles: list[str]) -> Iterator[tuple[list[str], Path]]:
    """Yield each compiler that answers with the path of its library, and add the others' reasons to ``obstacles``."""
    for compiler in native_compiler.compilers():
        try:
            name = f"conv4-{native_compiler.key(compiler)}.so"
        except NativeUnavailableError as error:
            obstacles.append(str(error))
        else:
            yield compiler, folder / name


def _compiled(compiler: list[str], library: Path) -> bytes:
    """Compile the library, store it with its checksum, and return its code."""
    code = native_compiler.compiled(compiler, library.parent)
    with replacing(library) as temporary:
        temporary.write_bytes(code + hashlib.sha256(code).digest())
        temporary.chmod(0o700)
    return code


def _verified(library: Path) -> bytes | None:
    """Return the code in a file, or None unless it exists, only this user may write it, and its checksum is right."""
    try:
        with open_regular(library, MAX_LIBRARY_BYTES) as file:
            status = os.fstat(file.fileno())
            content = file.read()
    except OSError:
        return None
    code, digest = content[:-DIGEST], content[-DIGEST:]
    own = status.st_uid == os.geteuid() and not status.st_mode & 0o022
    return code if own and hashlib.sha256(code).digest() == digest else None


def _loaded(code: bytes) -> ctypes.CDLL:
    """Load a library from its bytes: from memory, or where that is not possible from a folder made for this."""
    if hasattr(os, "memfd_create"):
        # It stays open: the loader takes two libraries of one path for one, and a closed number is used again.
        handle = os.memfd_create("conv4")
        try:
            with os.fdopen(os.dup(handle), "wb") as file:
                file.write(code)
            return ctypes.CDLL(f"/proc/self/fd/{handle}")
        except OSError:  # no /proc, or a system that runs nothing from memory
            os.close(handle)
    with tempfile.TemporaryDirectory(prefix="torchreptile-") as folder:
        path = Path(folder) / "conv4.so"
        path.write_bytes(code)
        path.chmod(0o700)
        return ctypes.CDLL(str(path))
