"""Run folders and checkpoints: written atomically, resumed exactly, read without running anything.

A run folder holds config.json, env.json, metrics.jsonl, last.pt, best.pt (where there are validation
classes), eval-*.json and what ``reptile report`` draws.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from torchreptile.algorithms import MetaState
from torchreptile.config import Config
from torchreptile.errors import ConfigError, RunError
from torchreptile.files import replacing, write_text
from torchreptile.inner import InnerState

FORMAT = "torchreptile-checkpoint-1"


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
        best: the best validation accuracy so far, from 0 to 1; -1 before the first.
        data: fingerprint of the training images.
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


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write ``checkpoint`` so that ``path`` is, at every moment, the old file or the new one."""
    inner = checkpoint.state.inner
    content = {
        "format": FORMAT,
        "config": checkpoint.config.to_json(),
        "params": {name: p.cpu() for name, p in checkpoint.state.params.items()},
        "inner": {"v": {name: v.cpu() for name, v in inner.v.items()}, "steps": inner.steps.cpu()},
        "step": checkpoint.step,
        "seconds": checkpoint.seconds,
        "generator": checkpoint.generator.cpu(),
        "metrics_bytes": checkpoint.metrics_bytes,
        "losses": list(checkpoint.losses),
        "best": checkpoint.best,
        "data": checkpoint.data,
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint; only tensors and plain values are admitted, never code.

    Raises:
        RunError: the file is missing, damaged, foreign, or holds anything else.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
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
    return Checkpoint(
        config=Config.from_json(content["config"]),
        state=MetaState(content["params"], InnerState(content["inner"]["v"], content["inner"]["steps"])),
        step=int(content["step"]),
        seconds=float(content["seconds"]),
        generator=content["generator"].cpu(),
        metrics_bytes=int(content["metrics_bytes"]),
        losses=(float(content["losses"][0]), int(content["losses"][1])),
        best=float(content["best"]),
        data=str(content["data"]),
    )


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        """Name a folder; nothing is read or written yet."""
        self.path = path
        self.config_file, self.env_file = path / "config.json", path / "env.json"
        self.metrics_file = path / "metrics.jsonl"
        self.last, self.best = path / "last.pt", path / "best.pt"

    def create(self, config: Config, environment: dict[str, Any]) -> None:
        """Make the folder and write what the run is.

        Raises:
            RunError: something is there already.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise RunError(f"{self.path} exists; name another folder with --out, or go on with --resume {self.path}")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text(self.config_file, config.to_json() + "\n")
            write_text(self.env_file, json.dumps(environment, indent=2) + "\n")
            self.metrics_file.touch()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); name another folder") from error

    def config(self) -> Config:
        """The settings of the run.

        Raises:
            RunError: this is not a run folder.
        """
        try:
            return Config.from_json(self.config_file.read_text())
        except OSError as error:
            raise RunError(f"{self.path} is not a run folder: it has no readable config.json") from error
        except (ConfigError, UnicodeDecodeError) as error:
            raise RunError(f"{self.config_file}: {error}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut short by a kill is left out."""
        lines = []
        for line in self.metrics_file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                lines.append(json.loads(line))
        return lines
