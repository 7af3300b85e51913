"""Prototypical Networks' row: Snell, Swersky, Zemel 2017, arXiv 1703.05175."""

from __future__ import annotations

from typing import Any

from torchreptile.core.config.algorithm import AlgorithmRow, Published
from torchreptile.core.config.config import Config

OMNIGLOT_SOURCE = "Snell et al. 2017, table 1"
MINI_SOURCE = "Snell et al. 2017, table 2"


def image_settings(config: Config) -> dict[str, Any]:
    """Return the published settings for images: more classes than in test tasks, and as many shots.

    Snell et al. 2017, sections 3.1 and 3.2: Adam's step size is halved every 2,000 tasks. They stopped when the
    validation loss stopped improving; after 20,000 steps the weights no longer change.
    """
    task, large = config.task, config.task.large_images
    way = (20 if task.shots > 1 or task.way > 5 else 30) if large else 60
    return {
        "train_way": way if task.dataset != "folder" else 0,  # nobody knows how many classes own images have
        "train_shots": 0, "train_queries": 15 if large else 5, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_step_size_final": 1e-3, "outer_halve_every": 2_000,
        "outer_steps": 20_000, "inner_optimizer": "sgd", "inner_lr": 0.01,
    }  # fmt: skip


ROW = AlgorithmRow(
    name="protonet",
    title="Prototypical Networks",
    implementation="torchreptile.algorithms.prototypical_networks:PrototypicalNetworks",
    learns_from_queries=True,
    trains_by_steps=False,
    adapts_by_steps=False,
    compares_embeddings=True,
    own_training_way=True,
    change_image_settings=image_settings,
    published={
        ("", "omniglot", 5, 1, False): Published(98.8, None, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 5, False): Published(99.7, None, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 1, False): Published(96.0, None, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 5, False): Published(98.9, None, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 1, False): Published(49.42, 0.78, MINI_SOURCE),
        ("", "mini-imagenet", 5, 5, False): Published(68.2, 0.66, MINI_SOURCE),
    },
)
