"""Compiling the C++ code of the native execution: which compiler, in which folder, and no process left behind."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from torchreptile.core.files import working_folder

CODE = Path(__file__).with_name("native_code")
MAIN = "conv4.cpp"  # includes the rest
# Not -ffast-math: NaN and infinity must stay what they are.
FLAGS = [
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
]
BUILD_SECONDS = 180  # compiling takes about 7 seconds on an idle core
ASK_SECONDS = 20
MAX_LIBRARY_BYTES = 256 * 2**20
# Reads the number of a process group, then waits until the other end of the pipe is closed, which the system does when
# this process dies, however it dies; then ends the group.
WATCH = 'read -r group && { read -r end; kill -9 "-$group"; }'


class NativeUnavailableError(Exception):
    """The C++ library is missing and cannot be compiled on this machine; the message gives the reason in one line."""


def compilers() -> list[list[str]]:
    """Return the commands of the compilers to try: $CXX alone if it is set, else those found on the path.

    Raises:
        NativeUnavailableError: $CXX cannot be read.
    """
    try:
        named = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise NativeUnavailableError(f"$CXX cannot be read ({error})") from error
    return [named] if named else [[name] for name in ("g++", "clang++") if shutil.which(name)]


def key(compiler: list[str]) -> str:
    """Return a name for what ``compiler`` makes of the code: a hash of the code, the command and its macros.

    The macros a compiler defines include its version and this processor's features.

    Raises:
        NativeUnavailableError: the compiler does not answer.
    """
    code = b"".join(path.name.encode() + path.read_bytes() for path in sorted(CODE.iterdir()) if path.is_file())
    command = [*compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull]
    macros = shlex.join(command).encode() + _output_of(command, ASK_SECONDS)
    return hashlib.sha256(code + macros).hexdigest()[:32]


def compiled(compiler: list[str], folder: Path) -> bytes:
    """Compile the code and return the library.

    Everything happens in a new folder in ``folder`` that nobody else can enter, and that is held open: whoever may
    rename folders in a shared cache cannot slip in code between two steps of the compiler.

    Raises:
        NativeUnavailableError: it does not compile.
        OSError: the folder cannot be written.
    """
    with working_folder(folder, "conv4") as (path, handle):
        status = os.fstat(handle)
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise NativeUnavailableError(f"{path} is not the folder that was made there")
        here = Path(f"/proc/self/fd/{handle}")
        program = os.path.abspath(compiler[0]) if os.sep in compiler[0] else compiler[0]
        command = [program, *compiler[1:], *FLAGS, str(CODE / MAIN), "-o", "conv4.so"]
        _output_of(command, BUILD_SECONDS, here if here.exists() else path)
        output = os.open("conv4.so", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=handle)
        with os.fdopen(output, "rb") as file:
            if not stat.S_ISREG(os.fstat(output).st_mode):
                raise NativeUnavailableError(f"{compiler[0]} failed: what it made is not a file")
            return file.read(MAX_LIBRARY_BYTES)


def _output_of(command: list[str], seconds: float, folder: Path | None = None) -> bytes:
    """Return the output of ``command``; after ``seconds``, or when this process dies, all that it started is killed."""
    temporary = {} if folder is None else {"TMPDIR": "."}
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **temporary, "LC_ALL": "C"},
        )
    except OSError as error:
        raise NativeUnavailableError(f"{command[0]} does not start ({error.strerror})") from error
    try:
        with _ended_with_this_process(process.pid):
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


@contextmanager
def _ended_with_this_process(group: int) -> Iterator[None]:
    """Have a process group killed if this process dies within the context."""
    try:
        watcher = subprocess.Popen(
            ["/bin/sh", "-c", WATCH],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:  # no shell: nobody watches
        yield
        return
    assert watcher.stdin is not None
    try:
        with suppress(OSError):
            watcher.stdin.write(b"%d\n" % group)
            watcher.stdin.flush()
        yield
    finally:
        watcher.kill()
        watcher.wait()
        with suppress(OSError):
            watcher.stdin.close()
