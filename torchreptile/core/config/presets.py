"""Named settings: one constant per published table cell of Reptile, and what the other algorithms change in it.

Reptile's are from Nichol, Achiam, Schulman 2018, arXiv 1803.02999, appendix A; the others' from their own papers, named
where they stand. The published accuracies are in published.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torchreptile.core.config.algorithm import AlgorithmRow
from torchreptile.core.config.algorithm_table import algorithm_row, register_algorithm
from torchreptile.core.config.config import Config
from torchreptile.core.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A named set of settings: data set, shots and way as the name says (of functions the data set), for Reptile."""

    name: str
    config: Config


FIVE_WAY = Config()
TWENTY_WAY = Config().replace(way=20, inner_lr=5e-4, inner_batch=20, inner_steps=10, outer_steps=200_000, eval_batch=10)
MINI_FIVE_WAY = Config().replace(dataset="mini-imagenet", train_shots=15, inner_steps=8)
# Nothing was published for Reptile here: what the paper changed from 5-way to 20-way on Omniglot is changed alike.
MINI_TWENTY_WAY = MINI_FIVE_WAY.replace(way=20, inner_lr=5e-4, inner_batch=20, inner_steps=10, eval_batch=10)
# The paper's sine wave case study has 10 points, 32 steps and 1-64-64-1. The rest is the code's that was published with
# it: a training task is 50 points, passed through once by SGD, one task at a time.
SINE = Config().replace(
    dataset="sine", way=1, shots=10, train_shots=50, inner_optimizer="sgd", inner_lr=0.02, inner_batch=10,
    inner_steps=5, outer_steps=30_000, meta_batch=1, outer_step_size=0.1, eval_steps=32, eval_batch=0, queries=50,
)  # fmt: skip
# Finn et al. 2017, section 5.1: the waves, 10 points and the network are theirs, and 10 steps are those of their
# figure; for Reptile nothing was published here.
SINE_MAML = SINE.replace(dataset="sine-maml", mlp_units=40, mlp_activation="relu", eval_steps=10)
# Nobody knows how many rows own tables have: these take 20 of a task to train on, and 10 + 10 to measure.
TABLE = SINE.replace(train_shots=20, queries=10)
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
        Preset("sine", SINE),
        Preset("sine-maml", SINE_MAML),
    )
}


def for_algorithm(algorithm: str, config: Config) -> Config:
    """Return the settings published with an algorithm for the task of ``config``, which has Reptile's.

    Raises:
        ConfigError: there is no such algorithm, or it cannot do this task.
    """
    row = algorithm_row(algorithm)
    change = row.change_function_settings if config.task.regression else row.change_image_settings
    return config.replace(algorithm=algorithm, **change(config))


class HasRow(Protocol):
    """An algorithm class of your own, as far as its settings are concerned."""

    row: AlgorithmRow


def preset(name: str, algorithm: str | type[HasRow] = "reptile") -> Config:
    """Return the settings of a preset for an algorithm.

    Args:
        name: one of those that ``reptile presets`` lists.
        algorithm: a name, or an algorithm class of your own with a ``row``.

    Raises:
        ConfigError: there is no such preset or algorithm.

    Example:
        >>> preset("omniglot-1shot-5way", "maml").inner.inner_lr
        0.4
    """
    if not isinstance(algorithm, str):
        register_algorithm(algorithm.row)
        algorithm = algorithm.row.name
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name}; the presets are {', '.join(PRESETS)}")
    return for_algorithm(algorithm, PRESETS[name].config)
