"""Reptile's row: Nichol, Achiam, Schulman 2018, arXiv 1803.02999."""

from __future__ import annotations

from torchreptile.core.config.algorithm import AlgorithmRow, Published

OMNIGLOT_SOURCE = "Nichol et al. 2018, table 2"
MINI_SOURCE = "Nichol et al. 2018, table 1"

ROW = AlgorithmRow(
    name="reptile",
    title="Reptile",
    implementation="torchreptile.algorithms.reptile:Reptile",
    plain_steps=True,
    fits_functions=True,
    published={
        ("", "omniglot", 5, 1, False): Published(95.39, 0.09, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 1, True): Published(97.68, 0.04, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 5, False): Published(98.9, 0.1, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 5, True): Published(99.48, 0.06, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 1, False): Published(88.14, 0.15, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 1, True): Published(89.43, 0.14, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 5, False): Published(96.65, 0.33, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 5, True): Published(97.12, 0.32, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 1, False): Published(47.07, 0.26, MINI_SOURCE),
        ("", "mini-imagenet", 5, 1, True): Published(49.97, 0.32, MINI_SOURCE),
        ("", "mini-imagenet", 5, 5, False): Published(62.74, 0.37, MINI_SOURCE),
        ("", "mini-imagenet", 5, 5, True): Published(65.99, 0.58, MINI_SOURCE),
    },
)
