"""ANIL's row: Raghu, Raghu, Bengio, Vinyals 2020, arXiv 1909.09157, who use MAML's settings.

The margins of its published accuracies are standard deviations over three trainings.
"""

from __future__ import annotations

from dataclasses import replace

from torchreptile.algorithms.rows import maml
from torchreptile.core.config.algorithm import Published

SOURCE = "Raghu et al. 2020, table 2"

ROW = replace(
    maml.ROW,  # the traits and settings
    name="anil",
    title="ANIL",
    implementation="torchreptile.algorithms.anil:ANIL",
    published={
        ("", "omniglot", 20, 1, True): Published(96.2, 0.5, SOURCE),
        ("", "omniglot", 20, 5, True): Published(98.0, 0.3, SOURCE),
        ("", "mini-imagenet", 5, 1, True): Published(46.7, 0.4, SOURCE),
        ("", "mini-imagenet", 5, 5, True): Published(61.5, 0.5, SOURCE),
    },
)
