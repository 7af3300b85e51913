"""Tar archives, read as a stream in one pass: nothing is extracted, and only regular files are read."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from torchreptile.core.errors import DataError

SUFFIXES = (".tar", ".tar.xz", ".tar.gz")
MAX_MEMBER_BYTES = 64 * 2**20  # the largest picture of ILSVRC-2012 has 15 MB

# Exceptions that tarfile and the decompressors raise for damaged files.
_DAMAGE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError, OverflowError)


class RefusedError(DataError):
    """A member of an archive that is not read; the message says why."""


def stream(path: Path) -> Iterator[tuple[str, bytes | RefusedError]]:
    """Read every member of a tar except folders, in the order of the archive, one at a time.

    Links, devices and pipes, names that point outside the archive, and members above ``MAX_MEMBER_BYTES`` are refused.

    Yields:
        The name of the member, and its content or the reason why it is refused.

    Raises:
        DataError: the archive is not a tar, damaged or truncated; raised after the members before the damage.
    """
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                if not member.isdir():
                    yield member.name, _content(tar, member)
                tar.members = []  # type: ignore[attr-defined]  # tarfile would hold every member in memory
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a complete tar archive ({reason}); get it again") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | RefusedError:
    """Return the content of a member, or the reason why it is refused."""
    name = PurePosixPath(member.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        return RefusedError("its name points outside the archive")
    if not member.isreg():
        kind = "link" if member.issym() or member.islnk() else "device or pipe"
        return RefusedError(f"it is a {kind}, not a file")
    if member.size > MAX_MEMBER_BYTES:
        return RefusedError(f"it has {member.size:,} bytes, more than the {MAX_MEMBER_BYTES:,} of any picture")
    file = tar.extractfile(member)
    return b"" if file is None else file.read()
