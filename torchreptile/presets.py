"""Named settings: one constant per published table cell of Reptile, and what the other algorithms change in it.

Reptile's are from Nichol, Achiam, Schulman 2018, arXiv 1803.02999, appendix A; the others' from their own papers, named
where they stand. The published accuracies are in published.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torchreptile.config import Config
from torchreptile.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A named set of settings: data set, shots and way as the name says, for Reptile."""

    name: str
    config: Config


FIVE_WAY = Config()
TWENTY_WAY = Config().replace(way=20, inner_lr=5e-4, inner_batch=20, inner_steps=10, outer_steps=200_000, eval_batch=10)
MINI_FIVE_WAY = Config().replace(dataset="mini-imagenet", train_shots=15, inner_steps=8)
# Nothing was published for Reptile here: what the paper changed from 5-way to 20-way on Omniglot is changed alike.
MINI_TWENTY_WAY = MINI_FIVE_WAY.replace(way=20, inner_lr=5e-4, inner_batch=20, inner_steps=10, eval_batch=10)
# Generated characters carry no published numbers: the settings are Omniglot's.
GLYPHS = {"dataset": "glyphs"}

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("omniglot-1shot-5way", FIVE_WAY),
        Preset("omniglot-5shot-5way", FIVE_WAY.replace(shots=5)),
        Preset("omniglot-1shot-20way", TWENTY_WAY),
        Preset("omniglot-5shot-20way", TWENTY_WAY.replace(shots=5)),
        Preset("mini-imagenet-1shot-5way", MINI_FIVE_WAY),
        Preset("mini-imagenet-5shot-5way", MINI_FIVE_WAY.replace(shots=5, eval_batch=15)),
        Preset("mini-imagenet-1shot-20way", MINI_TWENTY_WAY),
        Preset("mini-imagenet-5shot-20way", MINI_TWENTY_WAY.replace(shots=5)),
        Preset("glyphs-1shot-5way", FIVE_WAY.replace(**GLYPHS)),
        Preset("glyphs-5shot-5way", FIVE_WAY.replace(shots=5, **GLYPHS)),
        Preset("glyphs-1shot-20way", TWENTY_WAY.replace(**GLYPHS)),
        Preset("glyphs-5shot-20way", TWENTY_WAY.replace(shots=5, **GLYPHS)),
    )
}


def _maml(config: Config) -> dict[str, Any]:
    """Finn, Abbeel, Levine 2017, appendix A.1; on the whole support set, moved by Adam at a constant 1e-3.

    Their code divides the inner loss by the shots once more, which is the learning rate's part here. Large images are
    mini-ImageNet's settings, small ones Omniglot's, whoever's they are.
    """
    task = config.task
    large = task.dataset == "mini-imagenet" or (bool(task.data) and task.own_image_size >= 64)
    if large:
        lr, steps, eval_steps, meta_batch, queries = 0.01, 5, 10, 4 if task.shots == 1 else 2, 15
    elif task.way < 20:
        lr, steps, eval_steps, meta_batch, queries = 0.4, 1, 3, 32, task.shots
    else:
        lr, steps, eval_steps, meta_batch, queries = 0.1, 5, 5, 16, task.shots
    return {
        "train_shots": 0,
        "train_queries": queries,
        "inner_optimizer": "sgd",
        "inner_lr": lr / task.shots,
        "inner_batch": 0,
        "inner_steps": steps,
        "eval_steps": eval_steps,
        "eval_batch": 0,
        "outer_steps": 60_000,
        "meta_batch": meta_batch,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-3,
        "outer_clip": 10.0 if large else 0.0,
    }


def _meta_sgd(config: Config) -> dict[str, Any]:
    """Li et al. 2017, section 4.2: MAML's frame with one inner step; rates begin within 0.005 to 0.1."""
    lr = 0.01 if config.task.dataset == "mini-imagenet" else 0.1
    return _maml(config) | {"inner_steps": 1, "eval_steps": 1, "inner_lr": lr}


# What an algorithm's own publication has in place of Reptile's settings, for the task of a preset.
METHOD_SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "maml": _maml,
    "fomaml": _maml,
    "anil": _maml,  # Raghu et al. 2020 keep MAML's settings
    "meta-sgd": _meta_sgd,
}


def for_algorithm(algorithm: str, config: Config) -> Config:
    """The same task as in ``config`` for that algorithm, with the settings published for it."""
    changes = METHOD_SETTINGS[algorithm](config) if algorithm in METHOD_SETTINGS else {}
    return config.replace(algorithm=algorithm, **changes)


def preset(name: str, algorithm: str = "reptile") -> Config:
    """The settings of the preset ``name``, for that algorithm.

    Raises:
        ConfigError: there is no such preset or algorithm.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name}; the presets are {', '.join(PRESETS)}")
    return for_algorithm(algorithm, PRESETS[name].config)
