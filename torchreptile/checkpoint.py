"""Run folders and checkpoints: written atomically, resumed exactly, read without running anything.

A run folder holds config.json, env.json, metrics.jsonl, last.pt, best.pt (where there are validation
classes), eval-*.json and what ``reptile report`` draws.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from torchreptile.algorithms import MetaState
from torchreptile.config import Config
from torchreptile.data.tables import Scale
from torchreptile.environment import sittings
from torchreptile.errors import ConfigError, RunError
from torchreptile.files import is_temporary, replacing, write_text
from torchreptile.inner import InnerState
from torchreptile.outer_optimizer import OuterState

LOCK = ".lock"  # the file in a run folder that says it is in use
FORMAT = "torchreptile-checkpoint-3"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything a training needs to go on as if it had never stopped.

    Attributes:
        config: the run's settings.
        state: what was learned.
        step: outer steps done.
        seconds: of training so far, over all sittings.
        generator: state of the generator of tasks and mini-batches, uint8.
        metrics_bytes: length of metrics.jsonl that belongs to this checkpoint.
        losses: (sum, count) of training losses since the last line of metrics.
        best: the best validation score so far: accuracy from 0 to 1, -1 before the first; or error times -1, -inf
            before the first.
        data: fingerprint of the training images or functions.
        device, execution: the kind of device, and the execution, that it was computed by; a resumed run keeps them.
        scale: what tables of functions were standardised by.
    """

    config: Config
    state: MetaState
    step: int
    seconds: float
    generator: torch.Tensor
    metrics_bytes: int
    losses: tuple[float, int]
    best: float
    data: str
    device: str
    execution: str
    scale: Scale | None = None


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write ``checkpoint`` so that ``path`` is, at every moment, the old file or the new one."""
    content = _content(checkpoint)
    try:
        with replacing(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: cannot be saved ({reason}); what was saved before is untouched") from error


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """What :func:`save_checkpoint` writes, for another process to read."""
    file = io.BytesIO()
    torch.save(_content(checkpoint), file)
    return file.getvalue()


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    state = checkpoint.state.mapped(torch.Tensor.cpu)
    inner, outer, scale = state.inner, state.outer, checkpoint.scale
    return ({} if scale is None else {"scale": json.dumps(dataclasses.asdict(scale))}) | {
        "format": FORMAT,
        "config": checkpoint.config.to_json(),
        "params": state.params,
        "inner": {"v": inner.v, "steps": inner.steps},
        "outer": {"m": outer.m, "v": outer.v, "steps": outer.steps},
        "averages": state.averages,
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "generator": checkpoint.generator.cpu(),
        "metrics_bytes": checkpoint.metrics_bytes,
        "losses": list(checkpoint.losses),
        "best": checkpoint.best,
        "data": checkpoint.data,
        "device": checkpoint.device,
        "execution": checkpoint.execution,
    }


def load_checkpoint(source: Path | IO[bytes], device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are admitted, never code.

    Raises:
        RunError: the file is missing, damaged, foreign, or holds anything else.
    """
    path = source if isinstance(source, Path) else "the checkpoint"
    try:
        with warnings.catch_warnings():  # torch warns of pickles that are refused at once
            warnings.simplefilter("ignore")
            content = torch.load(source, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"{path}: there is no such checkpoint") from error
    except pickle.UnpicklingError as error:
        raise RunError(f"{path}: refused, it holds more than tensors and plain values") from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path}: not a checkpoint of this version ({FORMAT})")
    try:
        return _from_content(content)
    except (LookupError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise RunError(f"{path}: the checkpoint is incomplete ({error})") from error


def _from_content(content: dict[str, Any]) -> Checkpoint:
    params, inner, outer, averages = content["params"], content["inner"], content["outer"], content.get("averages", {})
    for tensors in (params, inner["v"], outer["m"], outer["v"], averages):
        if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise TypeError("something else stands where tensors should be")
    if not 0 <= content["step"] < float("inf") or content["metrics_bytes"] < 0:
        raise ValueError(f"step {content['step']}, metrics_bytes {content['metrics_bytes']}")
    if content["device"] not in ("cpu", "cuda"):
        raise ValueError(f"device {content['device']!r}")
    config = Config.from_json(content["config"])
    return Checkpoint(
        config=config,
        state=MetaState(
            params,
            InnerState(inner["v"], inner["steps"], config.training_batch),
            OuterState(outer["m"], outer["v"], outer["steps"]),
            averages,
        ),
        step=int(content["step"]),
        seconds=float(content["seconds"]),
        generator=content["generator"].cpu(),
        metrics_bytes=int(content["metrics_bytes"]),
        losses=(float(content["losses"][0]), int(content["losses"][1])),
        best=float(content["best"]),
        data=str(content["data"]),
        device=str(content["device"]),
        execution=str(content["execution"]),
        scale=Scale.from_json(json.loads(content["scale"])) if "scale" in content else None,
    )


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
            if environment | {"command": None} == sittings(before)[-1] | {"command": None}:
                return
            before["resumed"] = [*sittings(before)[1:], environment]
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
