"""Checkpoints: written atomically, resumed exactly, and read without executing code."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import pickle
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, RunError, first_line
from torchreptile.core.files import MAX_TENSOR_BYTES, open_regular, replacing
from torchreptile.core.torch_archive import MAX_PICKLE_BYTES, ArchiveError, names_code, require_intact
from torchreptile.data.functions.tables import Scale

FORMAT = "torchreptile-checkpoint-3"
MAX_COUNT = 10**15  # of steps, bytes and losses: up to there, floating-point numbers count exactly


class Division(NamedTuple):
    """How work is divided, which decides in which order sums are rounded; 0 where that is unknown.

    Attributes:
        threads: torch's threads in each process.
        processes: processes that share the tasks.
        task_chunk: tasks computed at a time.
        unrolled_steps: inner steps whose graph is in memory at a time, of algorithms that differentiate through them.
    """

    threads: int = 0
    processes: int = 0
    task_chunk: int = 0
    unrolled_steps: int = 0


UNKNOWN = Division()


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
        step_size: the outer step size of the last step.
        division: how the work was divided when this was saved.
        metrics_checksum: CRC-32 of metrics.jsonl at this checkpoint; None in those of earlier versions.
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
    step_size: float = 0.0
    division: Division = UNKNOWN
    metrics_checksum: int | None = None


class NotFiniteError(RunError):
    """A refusal to save what a diverged training computed.

    Attributes:
        what: what is not finite.
    """

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: not saved, because {what} is not finite; the previous checkpoint is untouched")
        self.what = what


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: at every moment ``path`` is the old file or the new one.

    Raises:
        NotFiniteError: a weight, or anything else that a resumed training starts from, is NaN or infinite.
        RunError: the file cannot be written. In either case the old one is untouched.
    """
    content = _content(checkpoint)
    if what := _not_finite(content):
        raise NotFiniteError(path, what)
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
    known: dict[str, Any] = {} if scale is None else {"scale": json.dumps(dataclasses.asdict(scale))}
    known |= {} if checkpoint.metrics_checksum is None else {"metrics_checksum": checkpoint.metrics_checksum}
    return known | {
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
        "step_size": checkpoint.step_size,
        "division": checkpoint.division._asdict(),
    }


def _not_finite(content: dict[str, Any]) -> str:
    """Return the name of the first weight, moment, average or sum of losses that is NaN or infinite, or an empty text.

    All tensors are on the CPU: one pass over them, and no waiting for a GPU.
    """
    inner, outer = content["inner"], content["outer"]
    groups = {"": content["params"], "second moment of ": inner["v"], "average ": content["averages"]}
    groups |= {"outer first moment of ": outer["m"], "outer second moment of ": outer["v"]}
    for kind, tensors in groups.items():
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                return f"{kind}{name}"
    return "" if math.isfinite(content["losses"][0]) else "the loss"


def load_checkpoint(source: Path | IO[bytes], device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint, verified in full before it is used; it may hold tensors and plain values, never code.

    Raises:
        RunError: the file is missing, damaged, of another kind or version, holds more than that, or was saved by a
            training that had diverged.
    """
    path = source if isinstance(source, Path) else "the checkpoint"
    try:
        # What is verified is what is read: a file of that name may be replaced in between.
        with open_regular(source, MAX_TENSOR_BYTES) if isinstance(source, Path) else nullcontext(source) as file:
            content = _read(file, device)
    except FileNotFoundError as error:
        raise RunError(f"{path}: there is no such checkpoint") from error
    except pickle.UnpicklingError as error:
        raise RunError(f"{path}: refused, it holds more than tensors and plain values") from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, MemoryError) as error:
        raise RunError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RunError(f"{path}: not a checkpoint of this version ({FORMAT})")
    try:
        checkpoint = _from_content(content)
    except (LookupError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise RunError(f"{path}: the checkpoint is incomplete ({error})") from error
    if what := _not_finite({"averages": {}} | content):
        raise RunError(f"{path}: {what} is NaN or infinite; the training had diverged, or the file is damaged")
    return checkpoint


def _read(file: IO[bytes], device: torch.device | str) -> Any:
    """Return the content of an open checkpoint file; raise UnpicklingError if it holds more than it may."""
    try:
        require_intact(file)
    except ArchiveError:
        file.seek(0)
        if names_code(file.read(MAX_PICKLE_BYTES)):  # a bare pickle, as a hostile file may be
            raise pickle.UnpicklingError from None
        raise
    with warnings.catch_warnings():  # torch warns about pickles that it then refuses
        warnings.simplefilter("ignore")
        return torch.load(file, map_location=device, weights_only=True)


def _require_types(content: dict[str, Any]) -> None:
    """Refuse a checkpoint's content whose numbers, texts or tensors have wrong types or impossible values."""
    inner, outer = content["inner"], content["outer"]
    for name, tensor in [*content["params"].items(), *inner["v"].items(), *outer["m"].items(), *outer["v"].items()]:
        if isinstance(tensor, torch.Tensor) and tensor.dtype != torch.float32:
            raise TypeError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')} numbers, not float32")
    for group in (content["params"], inner["v"], outer["m"], outer["v"], content.get("averages", {})):
        for name, tensor in [*group.items(), ("steps", inner["steps"]), ("steps", outer["steps"])]:
            if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
                raise TypeError("an entry that must be a tensor is not")
            held = tensor.untyped_storage().nbytes()  # less than it seems to have where one value stands for many
            if not tensor.is_floating_point() or tensor.nbytes > held or tensor.requires_grad:
                raise TypeError(f"{name} is not a plain tensor of floating-point numbers")
    for steps in (inner["steps"], outer["steps"]):
        if steps.ndim or not 0 <= float(steps) <= MAX_COUNT:
            raise ValueError("a number of optimizer steps that cannot be one")
    counts = {name: content[name] for name in ("step", "metrics_bytes")} | {"losses": content["losses"][1]}
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count <= MAX_COUNT:
            raise ValueError(f"{name} {count!r}")
    for name, number in {"seconds": content["seconds"], "losses": content["losses"][0]}.items():
        if type(number) not in (int, float) or not math.isfinite(number):
            raise ValueError(f"{name} {number!r}")
    if type(content["best"]) not in (int, float) or math.isnan(content["best"]) or content["best"] > 1:
        raise ValueError(f"best {content['best']!r}")
    if type(content.get("metrics_checksum")) not in (int, type(None)):
        raise ValueError(f"metrics_checksum {content['metrics_checksum']!r}")
    for name in ("config", "data", "execution"):
        if not isinstance(content[name], str):
            raise TypeError(f"{name} is not text")


def _from_content(content: dict[str, Any]) -> Checkpoint:
    """The checkpoint of a file's content; an exception if it is incomplete or of wrong types."""
    _require_types(content)
    params, inner, outer, averages = content["params"], content["inner"], content["outer"], content.get("averages", {})
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
        step_size=float(content.get("step_size", 0.0)),
        division=_division(content.get("division", {})),
        metrics_checksum=content.get("metrics_checksum"),
    )


def _division(numbers: dict[str, Any]) -> Division:
    """How work was divided; an exception if a number cannot be one."""
    division = Division(**numbers)
    if not all(isinstance(number, int) and number >= 0 for number in division):
        raise ValueError(f"division {numbers}")
    return division
