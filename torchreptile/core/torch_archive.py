"""Archives of ``torch.save``, verified in full before any part of them is used.

``torch.load`` checks neither the checksums of an archive nor how much work its pickle asks for, so that a bad sector
becomes other weights without a word, and 300 bytes can keep a processor busy for ever.
"""

from __future__ import annotations

import os
import pickletools
import struct
import zipfile
import zlib
from typing import IO

MAX_PICKLE_BYTES = 64 * 2**20  # it holds names and shapes, about 100 bytes per tensor
CHUNK = 2**20
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_GROW = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}  # instructions that change a container
_CALL = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "BUILD"}  # instructions that may copy what they are given


class ArchiveError(ValueError):
    """An archive that is damaged, or that ``torch.save`` did not write; the message says what is wrong."""


def require_intact(file: IO[bytes]) -> None:
    """Check every byte that an archive's reader uses: layout, sizes, checksums, and the work its pickle asks for.

    The members must be stored uncompressed, fill the file without gaps, overlaps or anything before and after them,
    and have the checksums that the archive states. The file is left at its start.

    Args:
        file: the archive, open for reading.

    Raises:
        ArchiveError: the archive is damaged or of another kind.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            _require_nothing_after(file, archive)
            ends = [_require_member(file, member) for member in members]
            starts = [*(member.header_offset for member in members), archive.start_dir]
            if starts[0] != 0 or any(not 0 <= start - end <= 24 for start, end in zip(starts[1:], ends, strict=True)):
                raise ArchiveError("its members do not fill the archive exactly")  # 24: a data descriptor
            if len({member.filename for member in members}) != len(members):
                raise ArchiveError("a member is there more than once")
            for member in members:
                if member.filename.endswith("/data.pkl"):
                    if member.file_size > MAX_PICKLE_BYTES:
                        raise ArchiveError(f"its pickle has {member.file_size:,} bytes")
                    require_bounded(archive.read(member))
    except (zipfile.BadZipFile, NotImplementedError, struct.error, LookupError, OverflowError, RuntimeError) as error:
        raise ArchiveError(f"not an intact archive of torch: {error}") from error
    file.seek(0)


def _require_nothing_after(file: IO[bytes], archive: zipfile.ZipFile) -> None:
    """Refuse bytes behind the archive's end; zipfile and torch would both pass over them."""
    file.seek(-_END.size, os.SEEK_END)
    if archive.comment or file.read(4) != b"PK\x05\x06":
        raise ArchiveError("something follows the end of the archive")


def _require_member(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Check one member against its header and its checksum; return where its content ends."""
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 or member.compress_size != member.file_size:
        raise ArchiveError(f"{_name(member)} is compressed or encrypted; torch stores members as they are")
    file.seek(member.header_offset)
    head = file.read(_LOCAL_HEADER.size)
    signature, *_, name, extra = _LOCAL_HEADER.unpack(head)
    if signature != b"PK\x03\x04" or file.read(name) != member.orig_filename.encode():
        raise ArchiveError(f"the header of {_name(member)} is damaged")
    file.seek(extra, os.SEEK_CUR)
    left, crc = member.file_size, 0
    while left:
        part = file.read(min(left, CHUNK))
        if not part:
            raise ArchiveError(f"{_name(member)} is cut off")
        crc, left = zlib.crc32(part, crc), left - len(part)
    if crc != member.CRC:
        raise ArchiveError(f"{_name(member)} is damaged: its checksum is not the one that was saved with it")
    return file.tell()


def _name(member: zipfile.ZipInfo) -> str:
    """Return the name of a member without the archive's own, which was that of a temporary file."""
    return member.filename.partition("/")[2] or member.filename


def require_bounded(content: bytes) -> None:
    """Refuse a pickle that asks for more work than it has bytes, without following its instructions.

    A pickle can fetch what it has made before, so that a tuple of tuples of tuples takes a few bytes and an endless
    time to hash. Here every value is only its size: what it would take to copy or hash it.

    Raises:
        ArchiveError: it is damaged, or asks for that much.
    """
    work, size, most = 0, 0, 1000 + 8 * len(content)
    stack: list[list[int] | None] = []  # a list of one number per value, shared like the value; None for a mark
    memo: dict[int, list[int]] = {}
    try:
        for opcode, argument, _ in pickletools.genops(content):
            name = opcode.name
            if name == "STOP":
                return
            if name == "MEMOIZE":
                memo[len(memo)] = _top(stack)
            elif name.endswith("PUT"):
                memo[int(argument)] = _top(stack)  # type: ignore[arg-type]
            elif name.endswith("GET"):
                stack.append(memo[int(argument)])  # type: ignore[arg-type]
            elif name == "DUP":
                stack.append(_top(stack))
            elif name == "MARK":
                stack.append(None)
            elif not opcode.stack_before:
                stack.append([1])
            else:
                taken = _taken(stack, opcode)
                size = sum([value[0] for value in taken])
                if name in _GROW:
                    taken[0][0] = size
                    stack.append(taken[0])
                elif opcode.stack_after:
                    stack.append([1 + size])
                work += size if name in _CALL else 0
            if work + size > most:
                raise ArchiveError("its pickle asks for more work than any checkpoint does")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise error if isinstance(error, ArchiveError) else ArchiveError(f"its pickle is damaged ({error})") from error


def _top(stack: list[list[int] | None]) -> list[int]:
    """Return the size of the topmost value."""
    top = stack[-1]
    if top is None:
        raise ValueError("a mark in the place of a value")
    return top


def _taken(stack: list[list[int] | None], opcode: pickletools.OpcodeInfo) -> list[list[int]]:
    """Remove the values that an instruction takes from the stack, and return their sizes from the bottom to the top."""
    before = opcode.stack_before
    taken: list[list[int] | None] = []
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            taken.append(top)
        taken.reverse()
        before = before[: before.index(pickletools.markobject)]
    if before:
        taken = stack[-len(before) :] + taken
        del stack[-len(before) :]
    if None in taken:
        raise ValueError("a mark in the place of a value")
    return [value for value in taken if value is not None]


def names_code(content: bytes) -> bool:
    """Return whether ``content`` begins as a bare pickle that names a class or a function."""
    try:
        return content[:1] == b"\x80" and any(
            opcode.name in ("GLOBAL", "STACK_GLOBAL", "INST") for opcode, _, _ in pickletools.genops(content)
        )
    except ValueError:
        return False
