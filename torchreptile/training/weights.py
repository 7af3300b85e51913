"""What a training left behind, by the path of its run folder or by the name of shipped weights."""

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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from torchreptile.algorithms.base import Algorithm, MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState, Params, shapes
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.core.files import write_bytes, write_text
from torchreptile.data.functions.tables import Scale
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.run_folder import RunFolder

FORMAT = "torchreptile-weights-1"
Kept = Literal["last", "best"]


@dataclass(frozen=True, eq=False)
class MetaWeights:
    """Meta-learned weights with the settings they were learned under.

    Attributes:
        name: the run folder's or the weights' name, for people.
        config: settings of the training.
        state: phi and the inner optimiser's state.
        step: outer steps done.
        folder: the run folder, None for weights.
        data: fingerprint of the training images or functions; empty for weights, which do not know it.
        scale: what tables of functions were standardised by.
    """

    name: str
    config: Config = field(repr=False)
    state: MetaState = field(repr=False)
    step: int
    folder: Path | None
    data: str = ""
    scale: Scale | None = None

    def to(self, device: torch.device | str) -> MetaWeights:
        """The same with its tensors on ``device``."""
        return replace(self, state=self.state.mapped(lambda tensor: tensor.to(device)))

    def require_fit(self, algorithm: Algorithm) -> None:
        """Refuse an algorithm whose network and settings these weights were not made for.

        Raises:
            ConfigError: names or shapes differ.
        """
        if algorithm.fits(self.state.params):
            if shapes(self.state.inner.v) != shapes(algorithm.begin(0).inner.v):
                raise RunError(f"{self.name} is damaged: its second moment does not fit its weights")
            return
        trained, task = self.config.task, algorithm.config.task
        if self.state.params.keys() != algorithm.shapes.keys():
            raise ConfigError(
                f"{self.name}: its weights are not those of this network; one of your own is named with --model"
            )
        if trained.regression:
            raise ConfigError(f"{self.name} was trained on {trained.title}; its shapes do not fit {task.title}")
        raise ConfigError(
            f"{self.name} was trained for {trained.way}-way tasks on images of {trained.title}; "
            f"it does not fit {task.way}-way tasks on {task.title}"
        )


def shipped_weights() -> list[str]:
    """Names of the weights inside the package."""
    folder = resources.files("torchreptile.training.shipped_weights")
    return sorted(file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json"))


def shipped_card(name: str) -> dict[str, Any]:
    """The card of the weights of that name inside the package."""
    with resources.as_file(
        resources.files("torchreptile.training.shipped_weights").joinpath(f"{name}.safetensors")
    ) as file:
        return weights_card(file)


def load_weights(source: str | Path, device: torch.device | str = "cpu", checkpoint: Kept = "last") -> MetaWeights:
    """Load a run folder, a weights file, or shipped weights by name. A folder of that name goes before weights.

    Args:
        source: path or name.
        device: where the tensors go.
        checkpoint: of a run folder, the last one (as published) or the one with the best validation accuracy.

    Raises:
        RunError: there is no such thing, or it cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        folder = RunFolder(path)
        if str(source) in shipped_weights() and not (folder.config_file.exists() or folder.last.exists()):
            raise RunError(
                f"{source} is a folder here, but not a run folder; from another directory it means the shipped weights"
            )
        config = folder.config()  # says clearly when this is no run folder
        if checkpoint == "best" and not folder.best.is_file():
            raise RunError(f"{path} has no best.pt: it has no validation classes, or measured none yet; take the last")
        file = folder.best if checkpoint == "best" else folder.last
        kept = load_checkpoint(file, device)
        if kept.config.learning() != config.learning():
            raise RunError(f"{file} is not of this run: its settings are not those of {folder.config_file}")
        return MetaWeights(path.name, kept.config, kept.state, kept.step, path, kept.data, kept.scale)
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
    learned: MetaWeights, path: Path, card: dict[str, Any], further: Mapping[str, Tensor] | None = None
) -> None:
    """Write ``path`` (.safetensors: parameters, second moment, averages, and tensors ``further`` by names of their own)
    and its card beside it (.json: settings and whatever ``card`` says of data, results and licence).

    Raises:
        RunError: in the card's place is a file that is none.
    """
    if path.with_suffix(".json").exists():
        weights_card(path)
    inner = learned.state.inner
    tensors = {f"params.{name}": p.cpu().contiguous() for name, p in learned.state.params.items()}
    tensors |= {f"inner.v.{name}": v.cpu().contiguous() for name, v in inner.v.items()}
    tensors |= {f"averages.{name}": t.cpu().contiguous() for name, t in learned.state.averages.items()}
    tensors["inner.steps"] = inner.steps.cpu()
    tensors |= {name: tensor.cpu().contiguous() for name, tensor in (further or {}).items()}
    content = {"format": FORMAT, "name": path.stem, "outer_steps_done": learned.step, **card}
    whole = save(tensors, {"format": FORMAT})
    content |= {"config": json.loads(learned.config.to_json()), "sha256": hashlib.sha256(whole).hexdigest()}
    if learned.scale is not None:
        content["scale"] = dataclasses.asdict(learned.scale)
    write_bytes(path, whole)  # safetensors' own save_file would let nobody else read it
    write_text(path.with_suffix(".json"), json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def weights_card(path: Path) -> dict[str, Any]:
    """The card of a weights file.

    Raises:
        RunError: it is missing or not a card.
    """
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path.with_suffix('.json')}: no readable card beside the weights ({error})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise RunError(f"{path.with_suffix('.json')}: not a card of this version ({FORMAT})")
    return card


def read_weights(path: Path, device: torch.device | str = "cpu") -> tuple[MetaWeights, Params]:
    """What :func:`save_weights` wrote, and all tensors in the file by name.

    Raises:
        RunError: it cannot be read.
    """
    card = weights_card(path)
    try:
        config = Config.from_json(json.dumps(card["config"]))
        with safe_open(path, framework="pt", device=str(device)) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        params = {name.removeprefix("params."): t for name, t in tensors.items() if name.startswith("params.")}
        v = {name.removeprefix("inner.v."): t for name, t in tensors.items() if name.startswith("inner.v.")}
        # What the outer optimiser remembered is of use to training alone, and not kept with weights.
        averages = {name.removeprefix("averages."): t for name, t in tensors.items() if name.startswith("averages.")}
        inner = InnerState(v, tensors["inner.steps"], config.training_batch)
        state = MetaState(params, inner, OuterState.fresh(params, "sgd"), averages)
        scale = Scale.from_json(card["scale"]) if "scale" in card else None
        if "sha256" in card and hashlib.sha256(path.read_bytes()).hexdigest() != card["sha256"]:
            raise RunError(f"{path}: not the file that {path.with_suffix('.json').name} belongs to, or damaged")
        return MetaWeights(path.stem, config, state, int(card["outer_steps_done"]), None, scale=scale), tensors
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, ConfigError) as error:
        raise RunError(f"{path}: not readable weights ({error})") from error
