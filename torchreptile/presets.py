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


LARGE_IMAGES = ("mini-imagenet", "folder")  # data sets for which mini-ImageNet's settings are meant


def _matching(config: Config) -> dict[str, Any]:
    """Training tasks like those of the test (Vinyals et al. 2016, section 2.2). No optimiser was published with it:
    15 queries per class and one task per step are Ravi and Larochelle's (ICLR 2017), Adam at 1e-3 is Chen et al.'s
    (ICLR 2019), whose code scales the cosines by 100; 10 and the annealing are ours."""
    return {
        "attention_scale": 10.0, "train_shots": 0, "train_queries": 15, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_steps": 75_000,
        "inner_optimizer": "sgd", "inner_lr": 0.01,
    }  # fmt: skip


def _protonet(config: Config) -> dict[str, Any]:
    """Snell et al. 2017, sections 3.1 and 3.2: more classes than in the test, as many shots, Adam halved every 2,000
    tasks. They stopped when the validation loss did; by 20,000 steps nothing moves any more."""
    task = config.task
    large = task.dataset in LARGE_IMAGES
    way = (20 if task.shots > 1 or task.way > 5 else 30) if large else 60
    return {
        "train_way": way if task.dataset != "folder" else 0,  # nobody knows how many classes own images have
        "train_shots": 0, "train_queries": 15 if large else 5, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_step_size_final": 1e-3, "outer_halve_every": 2_000,
        "outer_steps": 20_000, "inner_optimizer": "sgd", "inner_lr": 0.01,
    }  # fmt: skip


def _pretrained(config: Config) -> dict[str, Any]:
    """Chen et al. 2019 and its code: mini-batches of 16 images, Adam at 1e-3, 5 passes over Omniglot's training images
    and 400 over mini-ImageNet's; in a task 100 passes of SGD at 0.01 over the support set, 4 images at a time."""
    task = config.task
    return {
        "train_way": 16, "train_shots": 1, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_step_size_final": 1e-3,
        "outer_steps": 960_000 if task.dataset in LARGE_IMAGES else 25_700,
        "inner_optimizer": "sgd", "inner_lr": 0.01, "eval_steps": 25 * task.way * task.shots, "eval_batch": 4,
    }  # fmt: skip


def _scratch(config: Config) -> dict[str, Any]:
    """Reptile's steps in a task, with an optimiser that knows nothing yet; one outer step, for there is none to do."""
    return {"inner_state": "reset", "outer_steps": 1, "meta_batch": 1}


# What an algorithm's own publication has in place of Reptile's settings, for the task of a preset.
METHOD_SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "matching": _matching,
    "protonet": _protonet,
    "pretrained": _pretrained,
    "scratch": _scratch,
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
