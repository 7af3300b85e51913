"""One constant per published table cell: the settings, the published accuracy, and where it stands.

Sources: [Reptile] Nichol, Achiam, Schulman 2018, arXiv 1803.02999, tables 1-2 and appendix A;
[MAML] Finn, Abbeel, Levine 2017, arXiv 1703.03400, table 1 (first-order MAML as rerun in [Reptile]).
"""

from __future__ import annotations

from dataclasses import dataclass

from torchreptile.config import Config
from torchreptile.errors import ConfigError


@dataclass(frozen=True)
class Published:
    """A published accuracy.

    Attributes:
        accuracy, margin: percent, with the margin as printed in the source.
        source: where it stands.
    """

    accuracy: float
    margin: float
    source: str


@dataclass(frozen=True)
class Preset:
    """A named set of settings: algorithm Reptile, data set, shots and way as the name says."""

    name: str
    config: Config


REPTILE_SOURCE = "Nichol et al. 2018, table 2"
REPTILE_MINI_SOURCE = "Nichol et al. 2018, table 1"

# Keyed by (algorithm, data set, way, shots, transductive).
PUBLISHED: dict[tuple[str, str, int, int, bool], Published] = {
    ("reptile", "omniglot", 5, 1, False): Published(95.39, 0.09, REPTILE_SOURCE),
    ("reptile", "omniglot", 5, 1, True): Published(97.68, 0.04, REPTILE_SOURCE),
    ("reptile", "omniglot", 5, 5, False): Published(98.90, 0.10, REPTILE_SOURCE),
    ("reptile", "omniglot", 5, 5, True): Published(99.48, 0.06, REPTILE_SOURCE),
    ("reptile", "omniglot", 20, 1, False): Published(88.14, 0.15, REPTILE_SOURCE),
    ("reptile", "omniglot", 20, 1, True): Published(89.43, 0.14, REPTILE_SOURCE),
    ("reptile", "omniglot", 20, 5, False): Published(96.65, 0.33, REPTILE_SOURCE),
    ("reptile", "omniglot", 20, 5, True): Published(97.12, 0.32, REPTILE_SOURCE),
    ("reptile", "mini-imagenet", 5, 1, False): Published(47.07, 0.26, REPTILE_MINI_SOURCE),
    ("reptile", "mini-imagenet", 5, 1, True): Published(49.97, 0.32, REPTILE_MINI_SOURCE),
    ("reptile", "mini-imagenet", 5, 5, False): Published(62.74, 0.37, REPTILE_MINI_SOURCE),
    ("reptile", "mini-imagenet", 5, 5, True): Published(65.99, 0.58, REPTILE_MINI_SOURCE),
    ("foml", "mini-imagenet", 5, 1, True): Published(48.07, 1.75, REPTILE_MINI_SOURCE),
    ("foml", "mini-imagenet", 5, 5, True): Published(63.15, 0.91, REPTILE_MINI_SOURCE),
    ("foml", "omniglot", 5, 1, True): Published(98.3, 0.5, REPTILE_SOURCE),
    ("foml", "omniglot", 5, 5, True): Published(99.2, 0.2, REPTILE_SOURCE),
    ("foml", "omniglot", 20, 1, True): Published(89.4, 0.5, REPTILE_SOURCE),
    ("foml", "omniglot", 20, 5, True): Published(97.9, 0.1, REPTILE_SOURCE),
}

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


def preset(name: str) -> Config:
    """The settings of the preset ``name``.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name].config


def published(algorithm: str, dataset: str, way: int, shots: int, transductive: bool) -> Published | None:
    """The published accuracy of that cell, or None where none was published."""
    return PUBLISHED.get((algorithm, dataset, way, shots, transductive))
