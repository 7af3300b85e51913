"""The C++ code of native.py as a library: compiled for this machine on first use, kept in the cache, loaded.

Loading a library runs it, so it lies in a folder that belongs to the user and that nobody else may enter, and it
carries the checksum of its content: one that was cut short is made again instead of taking the process down.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from torchreptile.core.errors import first_line
from torchreptile.core.files import replacing
from torchreptile.core.paths import cache_dir

CODE = Path(__file__).with_name("native_code")
MAIN = "conv4.cpp"  # includes the rest
# Not -ffast-math: NaN and infinity must stay what they are.
FLAGS = [
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
]
BUILD_SECONDS = 180  # it takes about 7 of an idle core
ASK_SECONDS = 20
DIGEST = 32  # bytes of a SHA-256


class NativeUnavailableError(Exception):
    """There is no compiled library here, and none can be made; the message says why, in a line."""


def native_library() -> ctypes.CDLL:
    """The library, compiled if need be.

    Raises:
        NativeUnavailableError: it cannot be had here.
    """
    found = _once()
    if isinstance(found, str):
        raise NativeUnavailableError(found)
    return found


@cache
def _once() -> ctypes.CDLL | str:
    """The library, or why there is none: tried once per process, because failing may take minutes."""
    if os.name != "posix":
        return "it needs Linux or macOS"
    try:
        return ctypes.CDLL(str(_library_file(_own_folder())))
    except (OSError, NativeUnavailableError) as error:
        return first_line(error)


def _own_folder() -> Path:
    """By user, for a cache may be shared, and nobody should run what others put there."""
    return _private_folder(cache_dir() / f"native-{os.geteuid()}")


def _private_folder(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise NativeUnavailableError(f"{folder} is not a folder of yours that is closed to others; delete it")
    return folder


def _library_file(folder: Path) -> Path:
    """The first of the machine's compilers that works makes it, unless it has made it before."""
    obstacles: list[str] = []
    for compiler, library in _libraries(folder, obstacles):
        try:
            if not _is_whole(library):
                _compile(compiler, library)
            return library
        except NativeUnavailableError as error:
            obstacles.append(str(error))
    raise NativeUnavailableError("; ".join(obstacles) or "no C++ compiler: neither $CXX nor g++ nor clang++")


def _libraries(folder: Path, obstacles: list[str]) -> Iterator[tuple[list[str], Path]]:
    """Each of the machine's compilers that answers, and where what it makes lies; the others' reasons are added to
    ``obstacles``.
    """
    for compiler in _compilers():
        try:
            key = hashlib.sha256(_code() + _what_it_compiles_for(compiler)).hexdigest()[:32]
        except NativeUnavailableError as error:
            obstacles.append(str(error))
        else:
            yield compiler, folder / f"conv4-{key}.so"


def _code() -> bytes:
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(CODE.iterdir()) if path.is_file())


def _compilers() -> list[list[str]]:
    try:
        named = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise NativeUnavailableError(f"$CXX cannot be read ({error})") from error
    return [named] if named else [[name] for name in ("g++", "clang++") if shutil.which(name)]


def _what_it_compiles_for(compiler: list[str]) -> bytes:
    """The command and the macros it defines: its version, and what it found out about this processor."""
    command = [*compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull]
    return shlex.join(command).encode() + _output_of(command, ASK_SECONDS)


def _compile(compiler: list[str], library: Path) -> None:
    with replacing(library) as temporary:
        _output_of([*compiler, *FLAGS, str(CODE / MAIN), "-o", str(temporary)], BUILD_SECONDS)
        content = temporary.read_bytes()
        temporary.write_bytes(content + hashlib.sha256(content).digest())  # the loader ignores what follows
        temporary.chmod(0o700)


def _is_whole(library: Path) -> bool:
    """Whether it is there, written by this user alone, and as it was written."""
    if not library.is_file():
        return False
    status = library.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        return False
    content = library.read_bytes()
    return hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]


def _output_of(command: list[str], seconds: float) -> bytes:
    """What ``command`` writes, within a time: with it ends whatever it started itself."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise NativeUnavailableError(f"{command[0]} does not start ({error.strerror})") from error
    try:
        output, _ = process.communicate(timeout=seconds)
    except BaseException as error:
        with suppress(ProcessLookupError):  # what it started may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise NativeUnavailableError(f"{command[0]} took longer than {seconds:g} seconds") from error
        raise
    if process.returncode != 0:
        lines = output.decode(errors="replace").splitlines()
        said = next((line.strip() for line in lines if "error" in line), lines[-1].strip() if lines else "silently")
        raise NativeUnavailableError(f"{command[0]} failed: {said[:200]}")
    return output
