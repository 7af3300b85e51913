"""Checkpoints: written atomically, resumed exactly, and read without executing code."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from torchreptile.algorithms.base import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, RunError, first_line
from torchreptile.core.files import replacing
from torchreptile.data.functions.tables import Scale

FORMAT = "torchreptile-checkpoint-3"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that a resumed training needs to continue as if it had never stopped.

    Attributes:
        config: settings of the run.
        state: the meta-learned state.
        step: outer steps done.
        seconds: seconds of training so far, over all sessions.
        generator: state of the generator of tasks and inner batches, uint8.
        metrics_bytes: length of metrics.jsonl at this checkpoint.
        losses: (sum, count) of training losses since the last line of metrics.
        best: best validation score so far: accuracy from 0 to 1, or minus the error; -1 or -inf before the first.
        data: fingerprint of the training images or functions.
        device: cpu or cuda; a resumed run stays on it.
        execution: name of the execution; a resumed run stays with it.
        scale: standardisation of tables of functions; None for other data.
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
    """Write a checkpoint atomically: at every moment ``path`` is the old file or the new one.

    Raises:
        RunError: the file cannot be written; the old one is untouched.
    """
    content = _content(checkpoint)
    try:
        with replacing(path) as temporary:
            torch.save(content, temporary)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise RunError(
            f"{path}: cannot be saved ({first_line(error)}); the previous checkpoint is untouched"
        ) from error


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the content of a checkpoint file, to send to another process."""
    file = io.BytesIO()
    torch.save(_content(checkpoint), file)
    return file.getvalue()


def _content(checkpoint: Checkpoint) -> dict[str, Any]:
    """The tensors, on the CPU, and plain values of a checkpoint file."""
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
    """Read a checkpoint; a file may hold tensors and plain values, never code.

    Raises:
        RunError: the file is missing, damaged, of another kind or version, or holds more than that.
    """
    path = source if isinstance(source, Path) else "the checkpoint"
    try:
        with warnings.catch_warnings():  # torch warns about pickles that it then refuses
            warnings.simplefilter("ignore")
            content = torch.load(source, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise RunError(f"{path}: there is no such checkpoint") from error
    except pickle.UnpicklingError as error:
        raise RunError(f"{path}: refused, it holds more than tensors and plain values") from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        raise RunError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path}: not a checkpoint of this version ({FORMAT})")
    try:
        return _from_content(content)
    except (LookupError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise RunError(f"{path}: the checkpoint is incomplete ({error})") from error


def _from_content(content: dict[str, Any]) -> Checkpoint:
    """The checkpoint of a file's content; an exception if it is incomplete or of wrong types."""
    params, inner, outer, averages = content["params"], content["inner"], content["outer"], content.get("averages", {})
    for tensors in (params, inner["v"], outer["m"], outer["v"], averages):
        if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
            raise TypeError("an entry that must be a tensor is not")
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
