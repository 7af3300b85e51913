"""Tar archives, read as a stream in one pass: nothing is extracted, and nothing but plain files is read."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from torchreptile.core.errors import DataError

SUFFIXES = (".tar", ".tar.xz", ".tar.gz")
MAX_MEMBER_BYTES = 64 * 2**20  # the largest picture of ILSVRC-2012 has 15 MB

# What tarfile and the decompressors raise for bytes that are not what they claim to be.
_DAMAGE = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError, OverflowError)


class RefusedError(DataError):
    """A member that is not read; the others are."""


def stream(path: Path) -> Iterator[tuple[str, bytes | RefusedError]]:
    """Every member of a tar but its folders, in the archive's order: its name, and its content or why there is none.

    RefusedError are links, devices and pipes, names that lead out of the archive, and members above
    ``MAX_MEMBER_BYTES``. Only one member at a time is in memory.

    Raises:
        DataError: the archive is not a tar, or is damaged or cut off; members before the damage have been given.
    """
    try:
        with tarfile.open(path, "r|*") as tar:
            for member in tar:
                if not member.isdir():
                    yield member.name, _content(tar, member)
                tar.members = []  # type: ignore[attr-defined]  # or a pass through a million of them would keep each
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a whole tar archive ({reason}); get it again") from error


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | RefusedError:
    name = PurePosixPath(member.name.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts:
        return RefusedError("its name leads out of the archive")
    if not member.isreg():
        kind = "link" if member.issym() or member.islnk() else "device or pipe"
        return RefusedError(f"it is a {kind}, not a file")
    if member.size > MAX_MEMBER_BYTES:
        return RefusedError(f"it has {member.size:,} bytes, more than the {MAX_MEMBER_BYTES:,} of any picture")
    file = tar.extractfile(member)
    return b"" if file is None else file.read()
