"""The C++ library of the native execution: compiled for this machine on first use, cached, and loaded.

Loading a library runs its code, so it is stored in a folder that belongs to the user and that nobody else may enter.
The file ends in a checksum of its content: a truncated library is compiled again instead of crashing the process.
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
BUILD_SECONDS = 180  # compiling takes about 7 seconds on an idle core
ASK_SECONDS = 20
DIGEST = 32  # bytes of a SHA-256


class NativeUnavailableError(Exception):
    """The C++ library is missing and cannot be compiled on this machine; the message gives the reason in one line."""


def native_library() -> ctypes.CDLL:
    """Return the C++ library, compiled first if it is not in the cache.

    Raises:
        NativeUnavailableError: it cannot be compiled or loaded on this machine.
    """
    found = _library_or_reason()
    if isinstance(found, str):
        raise NativeUnavailableError(found)
    return found


@cache
def _library_or_reason() -> ctypes.CDLL | str:
    """Return the library, or why there is none; tried once per process, because failing may take minutes."""
    if os.name != "posix":
        return "it needs Linux or macOS"
    try:
        return ctypes.CDLL(str(_library_file(_own_folder())))
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


def _library_file(folder: Path) -> Path:
    """Return the library's file, compiled by the first compiler that works unless it is in the cache."""
    obstacles: list[str] = []
    for compiler, library in _libraries(folder, obstacles):
        try:
            if not _is_intact(library):
                _compile(compiler, library)
            return library
        except NativeUnavailableError as error:
            obstacles.append(str(error))
    raise NativeUnavailableError("; ".join(obstacles) or "no C++ compiler: neither $CXX nor g++ nor clang++")


def _libraries(folder: Path, obstacles: list[str]) -> Iterator[tuple[list[str], Path]]:
    """Yield each compiler that answers with the path of its library, and add the others' reasons to ``obstacles``."""
    for compiler in _compilers():
        try:
            key = hashlib.sha256(_code() + _compiler_macros(compiler)).hexdigest()[:32]
        except NativeUnavailableError as error:
            obstacles.append(str(error))
        else:
            yield compiler, folder / f"conv4-{key}.so"


def _code() -> bytes:
    """Return the names and contents of all source files."""
    return b"".join(path.name.encode() + path.read_bytes() for path in sorted(CODE.iterdir()) if path.is_file())


def _compilers() -> list[list[str]]:
    """Return the commands of the compilers to try: $CXX alone if it is set, else those found on the path."""
    try:
        named = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise NativeUnavailableError(f"$CXX cannot be read ({error})") from error
    return [named] if named else [[name] for name in ("g++", "clang++") if shutil.which(name)]


def _compiler_macros(compiler: list[str]) -> bytes:
    """Return the command and the macros it defines, which include its version and this processor's features."""
    command = [*compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull]
    return shlex.join(command).encode() + _output_of(command, ASK_SECONDS)


def _compile(compiler: list[str], library: Path) -> None:
    """Compile the library, append its checksum, and move it into place."""
    with replacing(library) as temporary:
        _output_of([*compiler, *FLAGS, str(CODE / MAIN), "-o", str(temporary)], BUILD_SECONDS)
        content = temporary.read_bytes()
        temporary.write_bytes(content + hashlib.sha256(content).digest())  # the loader ignores what follows
        temporary.chmod(0o700)


def _is_intact(library: Path) -> bool:
    """Whether the file exists, only this user may write it, and its checksum is right."""
    if not library.is_file():
        return False
    status = library.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        return False
    content = library.read_bytes()
    return hashlib.sha256(content[:-DIGEST]).digest() == content[-DIGEST:]


def _output_of(command: list[str], seconds: float) -> bytes:
    """Return the output of ``command``; after ``seconds`` kill it and every process it started."""
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
        with suppress(ProcessLookupError):  # its children may outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise NativeUnavailableError(f"{command[0]} took longer than {seconds:g} seconds") from error
        raise
    if process.returncode != 0:
        lines = output.decode(errors="replace").splitlines()
        reason = next((line.strip() for line in lines if "error" in line), lines[-1].strip() if lines else "no output")
        raise NativeUnavailableError(f"{command[0]} failed: {reason[:200]}")
    return output
