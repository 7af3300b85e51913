"""Meta-learned weights: loaded from a run folder, a weights file or the shipped weights, and saved."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState, shapes
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.core.files import MAX_TENSOR_BYTES, read_regular, read_text, write_bytes, write_text
from torchreptile.core.sealed_json import parse_json, sealed, unsealed
from torchreptile.data.functions.tables import Scale
from torchreptile.models.built_in import Params
from torchreptile.training.checkpoint import MAX_COUNT, load_checkpoint
from torchreptile.training.run_folder import RunFolder

FORMAT = "torchreptile-weights-1"
CheckpointName = Literal["last", "best"]


@dataclass(frozen=True, eq=False)
class MetaWeights:
    """Meta-learned weights with the settings of their training.

    Attributes:
        name: name of the run folder or weights file.
        config: settings of the training.
        state: the initial weights phi, with the state of the inner optimizer.
        step: outer steps done.
        folder: the run folder; None for a weights file.
        data: fingerprint of the training images or functions; empty for a weights file.
        scale: standardisation of tables of functions; None for other data.
    """

    name: str
    config: Config = field(repr=False)
    state: MetaState = field(repr=False)
    step: int
    folder: Path | None
    data: str = ""
    scale: Scale | None = None

    def to(self, device: torch.device | str) -> MetaWeights:
        """Return a copy with the tensors on ``device``."""
        return replace(self, state=self.state.mapped(lambda tensor: tensor.to(device)))

    def require_fit(self, algorithm: Algorithm) -> None:
        """Refuse an algorithm whose network does not fit these weights.

        Raises:
            ConfigError: names or shapes of the parameters differ.
            RunError: the state of the inner optimizer is damaged.
        """
        if algorithm.fits(self.state.params):
            if shapes(self.state.inner.v) != shapes(algorithm.begin(0).inner.v):
                raise RunError(f"{self.name} is damaged: its second moment does not fit its weights")
            return
        trained, task = self.config.task, algorithm.config.task
        if self.state.params.keys() != algorithm.shapes.keys():
            raise ConfigError(
                f"{self.name}: its weights are not those of this network; name a custom network with --model"
            )
        if trained.regression:
            raise ConfigError(f"{self.name} was trained on {trained.title}; its shapes do not fit {task.title}")
        raise ConfigError(
            f"{self.name} was trained for {trained.way}-way tasks on images of {trained.title}; "
            f"it does not fit {task.way}-way tasks on {task.title}"
        )


def shipped_weights() -> list[str]:
    """Return the names of the weights in the package.

    Example:
        >>> "omniglot-5way" in shipped_weights()
        True
    """
    folder = resources.files("torchreptile.training.shipped_weights")
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))


def shipped_card(name: str) -> dict[str, Any]:
    """Return the card of shipped weights: settings, data, training, results and licence.

    Example:
        >>> shipped_card("omniglot-5way")["config"]["task"]["way"]
        5
    """
    with resources.as_file(
        resources.files("torchreptile.training.shipped_weights").joinpath(f"{name}.safetensors")
    ) as file:
        return weights_card(file)


def load_weights(
    source: str | Path, device: torch.device | str = "cpu", checkpoint: CheckpointName = "last"
) -> MetaWeights:
    """Load a run folder, a weights file, or shipped weights by name; a folder of the same name takes precedence.

    Args:
        source: path of a run folder or .safetensors file, or name of shipped weights.
        device: device of the tensors.
        checkpoint: which checkpoint of a run folder: the last, as published, or the best on the validation classes.

    Raises:
        RunError: there are no such weights, or they cannot be read.

    Example:
        >>> weights = load_weights("omniglot-5way")
        >>> weights.config.task.way, weights.step > 0
        (5, True)
        >>> weights.state.params["head.weight"].shape
        torch.Size([5, 256])
    """
    path = Path(source)
    if path.is_dir():
        folder = RunFolder(path)
        if str(source) in shipped_weights() and not (folder.config_file.exists() or folder.last.exists()):
            raise RunError(
                f"{source} is a folder here, but not a run folder; from another directory it names the shipped weights"
            )
        config = folder.config()  # with a clear error if this is not a run folder
        if checkpoint == "best" and not folder.best.is_file():
            raise RunError(
                f"{path} has no best.pt: no validation classes, or none measured yet; use the last checkpoint"
            )
        file = folder.best if checkpoint == "best" else folder.last
        saved = load_checkpoint(file, device)
        if saved.config.learning() != config.learning():
            raise RunError(f"{file} belongs to another run: its settings differ from {folder.config_file}")
        return MetaWeights(path.name, saved.config, saved.state, saved.step, path, saved.data, saved.scale)
    if path.suffix == ".safetensors" and path.is_file():
        return read_weights(path, device)[0]
    if str(source) in shipped_weights():
        with resources.as_file(
            resources.files("torchreptile.training.shipped_weights").joinpath(f"{source}.safetensors")
        ) as file:
            return read_weights(file, device)[0]
    known = ", ".join(shipped_weights()) or "none"
    raise RunError(f"{source}: neither a run folder nor shipped weights (there are: {known})")


def save_weights(
    weights: MetaWeights, path: Path, card: dict[str, Any], extra_tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Write a weights file (.safetensors) and its card (.json).

    Args:
        weights: their parameters, second moment and averages go into the file, their settings into the card.
        path: the .safetensors file; the card has the same name with .json.
        card: more entries of the card: data, results and licence.
        extra_tensors: more tensors of the file, by name.

    Raises:
        RunError: the card would replace a .json file that is not a card.
    """
    if path.with_suffix(".json").exists():
        weights_card(path)
    inner = weights.state.inner
    tensors = {f"params.{name}": p.cpu().contiguous() for name, p in weights.state.params.items()}
    tensors |= {f"inner.v.{name}": v.cpu().contiguous() for name, v in inner.v.items()}
    tensors |= {f"averages.{name}": t.cpu().contiguous() for name, t in weights.state.averages.items()}
    tensors["inner.steps"] = inner.steps.cpu()
    tensors |= {name: tensor.cpu().contiguous() for name, tensor in (extra_tensors or {}).items()}
    content = {"format": FORMAT, "name": path.stem, "outer_steps_done": weights.step, **card}
    file = save(tensors, {"format": FORMAT})
    content |= {"config": json.loads(weights.config.to_json()), "sha256": hashlib.sha256(file).hexdigest()}
    if weights.scale is not None:
        content["scale"] = dataclasses.asdict(weights.scale)
    write_bytes(path, file)  # safetensors' save_file would make it readable by its owner alone
    write_text(path.with_suffix(".json"), json.dumps(sealed(content), indent=2, ensure_ascii=False) + "\n")


def weights_card(path: Path) -> dict[str, Any]:
    """Return the card of a weights file.

    Raises:
        RunError: the card is missing, is not a card, or has changed since it was written.
    """
    try:
        card = unsealed(parse_json(read_text(path.with_suffix(".json"))))
    except (OSError, ValueError) as error:
        raise RunError(f"{path.with_suffix('.json')}: no readable card for the weights ({error})") from error
    if card.get("format") != FORMAT:
        raise RunError(f"{path.with_suffix('.json')}: not a card of this version ({FORMAT})")
    return card


def read_weights(path: Path, device: torch.device | str = "cpu") -> tuple[MetaWeights, Params]:
    """Return the weights that :func:`save_weights` wrote, and all tensors of the file by name.

    The file is read once and verified in full against its card before any part of it is used.

    Raises:
        RunError: the file or its card cannot be read, or is not what was saved.
    """
    card = weights_card(path)
    try:
        content = read_regular(path, MAX_TENSOR_BYTES)
        if hashlib.sha256(content).hexdigest() != card["sha256"]:
            raise RunError(f"{path}: not the file that {path.with_suffix('.json').name} belongs to, or damaged")
        config = Config.from_json(json.dumps(card["config"]))
        tensors = {name: tensor.to(device, copy=True) for name, tensor in load(content).items()}
        params = {name.removeprefix("params."): t for name, t in tensors.items() if name.startswith("params.")}
        v = {name.removeprefix("inner.v."): t for name, t in tensors.items() if name.startswith("inner.v.")}
        # The state of the outer optimizer serves training alone, so weights files do not hold it.
        averages = {name.removeprefix("averages."): t for name, t in tensors.items() if name.startswith("averages.")}
        inner = InnerState(v, tensors["inner.steps"], config.training_batch)
        state = MetaState(params, inner, OuterState.fresh(params, "sgd"), averages)
        scale = Scale.from_json(card["scale"]) if "scale" in card else None
        step = card["outer_steps_done"]
        _require_sound(tensors, step)
        return MetaWeights(path.stem, config, state, step, None, scale=scale), tensors
    except (
        OSError,
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        MemoryError,
        ConfigError,
    ) as error:
        raise RunError(f"{path}: not readable weights ({error})") from error


def _require_sound(tensors: Mapping[str, Tensor], step: Any) -> None:
    """Refuse weights whose tensors or step cannot be those of any training."""
    if type(step) is not int or step < 0:
        raise ValueError(f"outer_steps_done is {step!r}")
    if not any(name.startswith("params.") for name in tensors):
        raise ValueError("it holds no parameters")
    for name, tensor in tensors.items():
        is_parameter = name.startswith(("params.", "inner.v.", "averages."))
        if name.startswith(("params.", "inner.v.")) and tensor.dtype != torch.float32:
            raise ValueError(f"{name} holds {str(tensor.dtype).removeprefix('torch.')} numbers, not float32")
        if is_parameter and not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
            raise ValueError(f"{name} must hold finite floating-point numbers")
    if tensors["inner.steps"].ndim or not 0 <= float(tensors["inner.steps"]) <= MAX_COUNT:
        raise ValueError("inner.steps is not a number of steps")
