"""Where a training's numbers go: metrics.jsonl always, TensorBoard where asked for."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from torchreptile.core.errors import ConfigError


def require_tensorboard() -> None:
    """Ask before anything is written.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ConfigError("TensorBoard is not installed; pip install 'torchreptile[tensorboard]'")


class MetricsLog:
    """Appends one JSON object per line; can be cut back to what a checkpoint knows of."""

    def __init__(self, path: Path, keep_bytes: int, tensorboard: Path | None = None, from_step: int = 0) -> None:
        """Open ``path``, cut to its first ``keep_bytes`` bytes; TensorBoard's log is cut to before ``from_step``."""
        self._writer: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard), purge_step=from_step)
        self._file = path.open("ab")
        # Not beyond the end, which would fill up with zeros; and the position must follow for sync() to tell it.
        self._file.truncate(min(keep_bytes, self._file.tell()))
        self._file.seek(0, os.SEEK_END)

    def write(self, values: dict[str, float | int | str]) -> None:
        """Append one line, and hand it to the operating system at once."""
        self._file.write(json.dumps(values).encode() + b"\n")
        self._file.flush()
        if self._writer is not None:
            step = int(values["step"])
            for name, value in values.items():
                if name != "step" and not isinstance(value, str):
                    self._writer.add_scalar(name, value, step)

    def sync(self) -> int:
        """Force everything to disk; returns the length in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def __enter__(self) -> MetricsLog:
        """Use as a context manager."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()
