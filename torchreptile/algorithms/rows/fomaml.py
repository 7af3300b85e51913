"""First-order MAML's row: Finn, Abbeel, Levine 2017, section 5.2; measured on Omniglot by Nichol et al. 2018."""

from __future__ import annotations

from dataclasses import replace

from torchreptile.algorithms.rows import maml
from torchreptile.core.config.algorithm import Published

OMNIGLOT_SOURCE = "Nichol et al. 2018, table 2"
MINI_SOURCE = "Finn et al. 2017, table 1"

ROW = replace(
    maml.ROW,  # the traits and settings
    name="fomaml",
    title="First-order MAML",
    implementation="torchreptile.algorithms.fomaml:FirstOrderMAML",
    published={
        ("", "omniglot", 5, 1, True): Published(98.3, 0.5, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 5, True): Published(99.2, 0.2, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 1, True): Published(89.4, 0.5, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 5, True): Published(97.9, 0.1, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 1, True): Published(48.07, 1.75, MINI_SOURCE),
        ("", "mini-imagenet", 5, 5, True): Published(63.15, 0.91, MINI_SOURCE),
    },
)
