"""metrics.jsonl: one JSON object per measurement, cut back exactly on resume."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from types import TracebackType

from torchreptile.core.errors import RunError
from torchreptile.core.files import open_for_append
from torchreptile.core.json_text import json_text
from torchreptile.training.callbacks import Metrics


class MetricsLog:
    """Appends one JSON object per line; can be cut back to what a checkpoint knows of.

    Attributes:
        checksum: CRC-32 of everything that was written, which a checkpoint keeps.
    """

    def __init__(self, path: Path, keep_bytes: int, checksum: int | None = None) -> None:
        """Open ``path``, cut to its first ``keep_bytes`` bytes.

        Args:
            path: the file, made if it is missing.
            keep_bytes: bytes that the checkpoint knows of.
            checksum: CRC-32 of these bytes when they were written; None where the checkpoint does not know it.

        Raises:
            RunError: it cannot be opened, or is a link or anything else but a regular file.
        """
        try:
            self._file = open_for_append(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be used ({error.strerror})") from error
        # Not beyond the end, which would fill up with zeros; and the position must follow for sync() to report it.
        self._file.truncate(min(keep_bytes, self._file.tell()))
        self._file.seek(0)
        content = self._file.read()  # which moves to the end
        # Not that of what is there now: bytes that have changed since they were written must not become right.
        self.checksum = zlib.crc32(content) if checksum is None or len(content) < keep_bytes else checksum

    def write(self, values: Metrics) -> None:
        """Append one line, and hand it to the operating system at once."""
        line = json_text(values).encode() + b"\n"
        self.checksum = zlib.crc32(line, self.checksum)
        self._file.write(line)
        self._file.flush()

    def sync(self) -> int:
        """Force everything to disk; return the length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> MetricsLog:
        """Use as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()
