"""Meta-SGD's row: Li, Zhou, Chen, Li 2017, arXiv 1707.09835."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torchreptile.algorithms.rows import maml
from torchreptile.core.config.algorithm import Published
from torchreptile.core.config.config import Config

OMNIGLOT_SOURCE = "Li et al. 2017, table 2"
MINI_SOURCE = "Li et al. 2017, table 3"


def image_settings(config: Config) -> dict[str, Any]:
    """Return Meta-SGD's settings for images: MAML's with one inner step and initial rates within 0.005 to 0.1.

    Li et al. 2017, section 4.2.
    """
    lr = 0.01 if config.task.large_images else 0.1
    return maml.image_settings(config) | {"inner_steps": 1, "eval_steps": 1, "inner_lr": lr}


ROW = replace(
    maml.ROW,  # the traits, and the settings for functions
    name="meta-sgd",
    title="Meta-SGD",
    implementation="torchreptile.algorithms.meta_sgd:MetaSGD",
    learns_rates=True,
    change_image_settings=image_settings,
    published={
        ("", "omniglot", 5, 1, True): Published(99.53, 0.26, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 5, True): Published(99.93, 0.09, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 1, True): Published(95.93, 0.38, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 5, True): Published(98.97, 0.19, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 1, True): Published(50.47, 1.87, MINI_SOURCE),
        ("", "mini-imagenet", 5, 5, True): Published(64.03, 0.94, MINI_SOURCE),
        ("", "mini-imagenet", 20, 1, True): Published(17.56, 0.64, MINI_SOURCE),
        ("", "mini-imagenet", 20, 5, True): Published(28.92, 0.35, MINI_SOURCE),
    },
)
