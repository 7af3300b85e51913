"""Tar archives, read as a stream in one pass: nothing is extracted, and only regular files are read.

What an archive says of its sizes is not believed: what it may unpack to is bounded by its own length.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, Self, cast

from torchreptile.core.errors import DataError
from torchreptile.core.files import open_regular

SUFFIXES = (".tar", ".tar.xz", ".tar.gz")
MAX_BYTES = 2**40  # of an archive; that of the training pictures of ILSVRC-2012 has 138 GB
MAX_MEMBER_BYTES = 64 * 2**20  # the largest picture of ILSVRC-2012 has 15 MB
MAX_HEADER_BYTES = 2**20  # of a long name or of other notes on a member
MAX_RATIO, SPARE_BYTES = 100, 256 * 2**20  # what an archive may unpack to; pictures do not become smaller
CHUNK = 2**20

_FORMATS: dict[bytes, Any] = {
    b"\xfd7zXZ\0": lzma.open,
    b"\x5d\0\0\x80": lzma.open,
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
}  # by the first bytes of a compressed file
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)

# Exceptions that tarfile and the decompressors raise for damaged files.
_DAMAGE = (
    tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError, OverflowError, MemoryError,
    RecursionError,
)  # fmt: skip


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
        with open_regular(path, MAX_BYTES) as file:
            most = MAX_RATIO * os.fstat(file.fileno()).st_size + SPARE_BYTES
            unpacked = _Bounded(_unpacked(file), most)
            with tarfile.open(fileobj=cast(BinaryIO, unpacked), mode="r|", tarinfo=_tar_info(most)) as tar:
                for member in tar:
                    if not member.isdir():
                        yield member.name, _content(tar, member)
                    tar.members = []  # type: ignore[attr-defined]  # tarfile would hold every member in memory
            unpacked.finish()
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: not a complete tar archive ({reason}); get it again") from error


def _unpacked(file: BinaryIO) -> IO[bytes]:
    """Return the content of a file, decompressed if its first bytes are those of a compressed one."""
    start = file.read(6)
    file.seek(0)
    opener = next((opener for magic, opener in _FORMATS.items() if start.startswith(magic)), None)
    return opener(file) if opener else file


class _Bounded:
    """A stream that ends with an error, not with endless zeros: at what it may unpack to, and soon after its end."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._left, self._empty = file, most, 0

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        part = self._file.read(size)
        self._left -= len(part)
        self._empty += not part
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {MAX_RATIO} times its length")
        if self._empty > 10:  # tarfile would read on for every block that a member claims to have
            raise EOFError("a member is longer than the archive")
        return part

    def finish(self) -> None:
        """Read the rest, whose checksum counts for all that was read."""
        while self.read(CHUNK):
            pass


def _tar_info(most: int) -> type[tarfile.TarInfo]:
    """Return a class of members that refuses sizes which the archive cannot hold."""

    class Bounded(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
            info = super().frombuf(buf, encoding, errors)
            if not 0 <= info.size <= (MAX_HEADER_BYTES if info.type in _EXTENSIONS else most):
                raise ValueError(f"a member claims to have {info.size:,} bytes")
            return info

    return Bounded


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
