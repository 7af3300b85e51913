"""The folder of a run: its files, its lock, what may be in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from torchreptile.core.config import Config
from torchreptile.core.environment import sessions
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.core.files import is_temporary, write_text
from torchreptile.training.checkpoint import load_checkpoint

LOCK = ".lock"  # the file in a run folder that says it is in use


def _lock(file: IO[str]) -> None:
    """Take an exclusive lock without waiting, where the system offers one; OSError if it is taken."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        """Name a folder; nothing is read or written yet."""
        self.path = path
        self.config_file, self.env_file = path / "config.json", path / "env.json"
        self.metrics_file = path / "metrics.jsonl"
        self.last, self.best = path / "last.pt", path / "best.pt"
        self._lock_file = path / LOCK

    @contextmanager
    def locked(self, make: bool = False) -> Iterator[None]:
        """Keep every other process from training in this folder; the lock ends with the process, even if killed.

        Also removes what killed processes left half-written.

        Args:
            make: make the folder if it is not there.

        Raises:
            RunError: another process trains here, or the folder cannot be used.
        """
        try:
            if make:
                self.path.mkdir(parents=True, exist_ok=True)
            lock = self._lock_file.open("w")
        except OSError as error:
            raise RunError(f"{self.path}: cannot be used as a run folder ({error.strerror})") from error
        with lock:
            try:
                _lock(lock)
            except OSError as error:
                raise RunError(f"{self.path} is in use: another process trains in it") from error
            for file in self.path.iterdir():
                if is_temporary(file):
                    file.unlink()
            yield

    def require_free(self) -> None:
        """Refuse a folder that holds anything but what this class puts there before a run begins.

        Raises:
            RunError: something is there already.
        """
        taken = self.path.exists() and (
            not self.path.is_dir()
            or any(file != self._lock_file and not is_temporary(file) for file in self.path.iterdir())
        )
        if taken:
            raise RunError(f"{self.path} exists; name another folder with --out, or go on with --resume {self.path}")

    def steps_done(self) -> int:
        """Outer steps of the last checkpoint, 0 where there is none.

        Raises:
            RunError: it cannot be read.
        """
        return load_checkpoint(self.last).step if self.last.is_file() else 0

    def require_same(self, config: Config) -> None:
        """Refuse a run that learned, or learns, something else.

        Raises:
            RunError: naming a setting that differs.
        """
        if not self.config_file.is_file():
            return
        if departure := self.config().departure(config):
            raise RunError(f"{self.path} was trained with other settings ({departure}); name another folder with --out")

    def create(self, config: Config, environment: dict[str, Any]) -> None:
        """Write what the run is into the locked, empty folder.

        Raises:
            RunError: something is there already, or it cannot be written.
        """
        self.require_free()
        try:
            write_text(self.config_file, config.to_json() + "\n")
            write_text(self.env_file, json.dumps(environment, indent=2) + "\n")
            self.metrics_file.touch()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); name another folder") from error

    def go_on(self, config: Config, environment: dict[str, Any]) -> None:
        """Note with what, and where, a run that was begun goes on: env.json has every place it was computed at."""
        if self.config() != config:
            write_text(self.config_file, config.to_json() + "\n")
        try:
            before = self.environment()
        except RunError:  # killed just before it was written
            before = environment
        else:
            if environment | {"command": None} == sessions(before)[-1] | {"command": None}:
                return
            before["resumed"] = [*sessions(before)[1:], environment]
        write_text(self.env_file, json.dumps(before, indent=2) + "\n")

    def environment(self) -> dict[str, Any]:
        """What env.json holds: command, versions and hardware.

        Raises:
            RunError: it is missing or damaged.
        """
        try:
            content = json.loads(self.env_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.env_file}: missing or damaged ({error})") from error
        if not isinstance(content, dict):
            raise RunError(f"{self.env_file}: damaged, it holds no JSON object")
        return content

    def config(self) -> Config:
        """The settings of the run, from config.json; should that be gone, from the last checkpoint.

        Raises:
            RunError: this is not a run folder, or config.json is damaged.
        """
        try:
            return Config.from_json(self.config_file.read_text(encoding="utf-8"))
        except OSError as error:
            if self.last.is_file():
                return load_checkpoint(self.last).config
            raise RunError(f"{self.path} is not a run folder: it has no readable config.json") from error
        except (ConfigError, UnicodeDecodeError) as error:
            restore = "; delete it to go by last.pt's settings" if self.last.is_file() else ""
            raise RunError(f"{self.config_file}: {error}{restore}") from error

    def begun(self) -> bool:
        """Whether there is a last checkpoint to go on from; without one the run was killed before its first.

        Raises:
            RunError: it must have had one, as something was measured.
        """
        if self.last.is_file():
            return True
        if self.last.exists() or (self.metrics_file.is_file() and self.metrics_file.stat().st_size):
            raise RunError(
                f"{self.path} has metrics, but no {self.last.name} to go on from; start again with another --out"
            )
        return False

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut short by a kill is left out."""
        lines = []
        for line in self.metrics_file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                lines.append(json.loads(line))
        return lines
