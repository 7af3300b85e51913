"""Run folders: their files and their lock.

A run folder holds config.json, env.json, metrics.jsonl, last.pt, best.pt (if there are validation classes),
``eval-*.json`` and the report.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.environment import require_environment, sessions
from torchreptile.core.errors import ConfigError, RunError, TorchReptileError
from torchreptile.core.files import (
    is_temporary,
    open_for_append,
    open_lock,
    read_regular,
    read_text,
    remove_abandoned,
    write_text,
)
from torchreptile.core.sealed_json import parse_json, require_numbers, sealed, unsealed
from torchreptile.training.checkpoint import Checkpoint, load_checkpoint

LOCK = ".lock"  # locked while a process trains in the folder


class RunFolder:
    """The files of one run.

    Attributes:
        path: the folder.
        config_file: settings of the run.
        env_file: command, versions and hardware of every session.
        metrics_file: one JSON object per measurement.
        last: the last checkpoint.
        best: the checkpoint with the best validation score.
    """

    def __init__(self, path: Path) -> None:
        """Set the paths; nothing is read or written yet."""
        self.path = path
        self.config_file, self.env_file = path / "config.json", path / "env.json"
        self.metrics_file = path / "metrics.jsonl"
        self.last, self.best = path / "last.pt", path / "best.pt"
        self._lock_file = path / LOCK

    @contextmanager
    def locked(self, make: bool = False) -> Iterator[None]:
        """Lock the folder against other trainings until the context or the process ends, even if it is killed.

        Temporary files of killed processes are removed. The lock file keeps its content and may not be a link.

        Args:
            make: create the folder if it is missing.

        Raises:
            RunError: another process trains here, or the folder cannot be used.
        """
        try:
            if make:
                self.path.mkdir(parents=True, exist_ok=True)
            lock = open_lock(self._lock_file)
        except BlockingIOError as error:
            raise RunError(f"{self.path} is in use: another process trains in it") from error
        except OSError as error:
            which = f"{self._lock_file.name}: " if self._lock_file.is_symlink() else ""
            raise RunError(f"{self.path}: cannot be used as a run folder ({which}{error.strerror})") from error
        with lock:
            remove_abandoned(self.path)
            yield

    def require_free(self) -> None:
        """Refuse a folder that holds more than the lock and temporary files.

        Raises:
            RunError: the folder is not empty.
        """
        taken = self.path.exists() and (
            not self.path.is_dir()
            or any(file != self._lock_file and not is_temporary(file) for file in self.path.iterdir())
        )
        if taken:
            raise RunError(
                f"{self.path} exists; name another folder with --out, or resume it with --resume {self.path}"
            )

    def steps_done(self) -> int:
        """Return the outer steps of the last checkpoint, 0 if there is none.

        Raises:
            RunError: the checkpoint cannot be read.
        """
        return load_checkpoint(self.last).step if self.last.is_file() else 0

    def require_same(self, config: Config) -> None:
        """Refuse a run whose training settings differ from ``config``.

        Raises:
            RunError: a setting differs; the message names it.
        """
        if not self.config_file.is_file():
            return
        if departure := self.config().departure(config):
            raise RunError(f"{self.path} was trained with other settings ({departure}); name another folder with --out")

    def create(self, config: Config, environment: dict[str, Any]) -> None:
        """Write config.json, env.json and an empty metrics.jsonl into the locked, empty folder.

        Raises:
            RunError: the folder is not empty, or cannot be written.
        """
        self.require_free()
        try:
            write_text(self.config_file, config.to_json() + "\n")
            write_text(self.env_file, json.dumps(sealed(environment), indent=2) + "\n")
            open_for_append(self.metrics_file).close()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); name another folder") from error

    def record_session(self, config: Config, environment: dict[str, Any]) -> None:
        """Write the settings of a resumed run to config.json, and add its session to env.json."""
        if self.config() != config:
            write_text(self.config_file, config.to_json() + "\n")
        self.record_environment(environment)

    def record_environment(self, environment: dict[str, Any]) -> None:
        """Add what is known of this session to the last one in env.json, or a new one where they differ.

        They may differ in the command, and an earlier entry may lack what was unknown then.

        Raises:
            RunError: the file cannot be written.
        """
        try:
            first, *others = sessions(self.environment())
            every = [{name: value for name, value in first.items() if name != "resumed"}, *others]
        except RunError:  # killed just before it was written
            every = []
        last = every[-1] if every else {}
        known = {name: value for name, value in last.items() if name != "command"}
        if every and known == {name: environment.get(name) for name in known}:
            every[-1] = environment | last
        else:
            every.append(environment)
        if every[-1] != last:
            first, *others = every
            content = first | ({"resumed": others} if others else {})
            try:
                write_text(self.env_file, json.dumps(sealed(content), indent=2) + "\n")
            except OSError as error:
                raise RunError(f"{self.env_file}: cannot be written ({error.strerror})") from error

    def environment(self) -> dict[str, Any]:
        """Return the content of env.json: command, versions and hardware of the sessions.

        Raises:
            RunError: the file is missing or damaged.
        """
        try:
            return require_environment(unsealed(parse_json(read_text(self.env_file))))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.env_file}: missing or damaged ({error})") from error

    def config(self) -> Config:
        """Return the settings of the run from config.json, or from the last checkpoint if that file is missing.

        Raises:
            RunError: this is not a run folder, or config.json is damaged.
        """
        try:
            return Config.from_json(read_text(self.config_file))
        except OSError as error:
            if self.last.is_file():
                return load_checkpoint(self.last).config
            raise RunError(f"{self.path} is not a run folder: it has no readable config.json") from error
        except (ConfigError, UnicodeDecodeError) as error:
            restore = "; delete it to use the settings of last.pt" if self._last_has_settings() else ""
            raise RunError(f"{self.config_file}: {error}{restore}") from error

    def _last_has_settings(self) -> bool:
        """Return whether the last checkpoint could stand in for config.json."""
        try:
            return self.last.is_file() and bool(load_checkpoint(self.last).config)
        except TorchReptileError:
            return False

    def has_checkpoint(self) -> bool:
        """Return whether there is a last checkpoint; there is none in a run that was killed before the first.

        Raises:
            RunError: there are metrics, so the checkpoint was lost.
        """
        if self.last.is_file():
            return True
        if self.last.exists() or (self.metrics_file.is_file() and self.metrics_file.stat().st_size):
            raise RunError(
                f"{self.path} has metrics, but no {self.last.name} to resume from; start again with another --out"
            )
        return False

    def metrics(self, checkpoint: Checkpoint | None = None) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl, without a last one that a killed process left incomplete.

        A number that was not finite, which is null there, is left out of its line.

        Args:
            checkpoint: the last checkpoint, read before; what it knows of the file must be there unchanged.

        Raises:
            OSError: the file cannot be read.
            ValueError: a line is not an object of numbers, or has changed since it was written.
        """
        content = read_regular(self.metrics_file)
        lines = []
        for number, line in enumerate(content.decode().splitlines(keepends=True), 1):
            if not line.endswith("\n"):
                break
            try:
                lines.append(_metrics_line(line))
            except ValueError as error:
                raise ValueError(f"line {number} is damaged ({error})") from error
        if checkpoint is not None and checkpoint.metrics_checksum is not None:
            written = content[: checkpoint.metrics_bytes]
            if len(written) < checkpoint.metrics_bytes:
                raise ValueError(f"{checkpoint.metrics_bytes - len(written):,} bytes are missing")
            if zlib.crc32(written) != checkpoint.metrics_checksum:
                raise ValueError("it is not what was written: its checksum differs from that in last.pt")
        return lines


def _metrics_line(line: str) -> dict[str, Any]:
    """Return the values of a line of metrics.jsonl, which are numbers and texts; raise ValueError for anything else."""
    content = parse_json(line)
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    values = {name: value for name, value in content.items() if value is not None}
    require_numbers({name: value for name, value in values.items() if not isinstance(value, str)}, low=-math.inf)
    return values
