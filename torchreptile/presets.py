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


def _mann(config: Config) -> dict[str, Any]:
    """Santoro et al. 2016: episodes of 10 images per class, 16 at a time, 100,000 of those.

    The optimiser is Adam at 1e-3, as in the public implementations that reach the paper's numbers; the paper's own
    is RMSProp.
    """
    return {
        "train_shots": 10,
        "meta_batch": 16,
        "outer_steps": 100_000,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-4,
        "outer_clip": 10.0,
        "outer_clip_by": "norm",
    }


def _meta_lstm(config: Config) -> dict[str, Any]:
    """Ravi and Larochelle 2017: training tasks of as many shots as are tested, 15 queries per class, one at a time."""
    updates = 12 if config.task.shots == 1 else 5
    return {
        "train_shots": 0,
        "train_queries": 15,
        "queries": 15,
        "inner_steps": updates,
        "eval_steps": updates,
        "meta_batch": 1,
        "outer_steps": 50_000,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-3,
        "outer_clip": 0.25,
        "outer_clip_by": "norm",
    }


# What an algorithm's own publication has in place of Reptile's settings, for the task of a preset.
METHOD_SETTINGS: dict[str, Callable[[Config], dict[str, Any]]] = {
    "mann": _mann,
    "meta-lstm": _meta_lstm,
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
