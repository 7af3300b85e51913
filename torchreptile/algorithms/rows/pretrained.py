"""The baselines' row: Chen et al. 2019, arXiv 1904.04232."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torchreptile.core.config.algorithm import AlgorithmRow, AlgorithmSettings, Form, Published
from torchreptile.core.config.config import Config

OMNIGLOT_SOURCE = "Chen et al. 2019, appendix"
MINI_SOURCE = "Chen et al. 2019, table 2"


@dataclass(frozen=True)
class PretrainedSettings(AlgorithmSettings):
    """Settings of the baselines: a classifier of all meta-training classes, whose features are reused."""

    pretrained_head: Literal["linear", "cosine"] = "linear"
    """pretrained: the classifier, of training classes and then of a task's: linear (Baseline of Chen et al. 2019) or
    cosine (their Baseline++)."""


def image_settings(config: Config) -> dict[str, Any]:
    """Return the baselines' published settings for images.

    Chen et al. 2019 and their code: mini-batches of 16 images, Adam at 1e-3, 5 epochs of Omniglot's training images and
    400 of mini-ImageNet's; in a task 100 epochs of SGD at 0.01 over the support set, 4 images at a time.
    """
    task = config.task
    # They split Omniglot like Vinyals et al., so an epoch covers 4,112 classes.
    division = {"split_scheme": "vinyals"} if task.dataset == "omniglot" else {}
    return division | {
        "train_way": 16, "train_shots": 1, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_step_size_final": 1e-3,
        "outer_steps": 960_000 if config.task.large_images else 25_700,
        "inner_optimizer": "sgd", "inner_lr": 0.01, "eval_steps": 25 * task.way * task.shots, "eval_batch": 4,
    }  # fmt: skip


ROW = AlgorithmRow(
    name="pretrained",
    title="Baseline",
    implementation="torchreptile.algorithms.pretrained:Pretrained",
    settings=PretrainedSettings,
    trains_by_steps=False,
    own_training_way=True,
    change_image_settings=image_settings,
    forms={"cosine": Form("Baseline++", {"pretrained_head": "cosine"})},
    published={
        ("", "omniglot", 5, 1, False): Published(94.89, 0.45, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 5, False): Published(99.12, 0.13, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 1, False): Published(42.11, 0.71, MINI_SOURCE),
        ("", "mini-imagenet", 5, 5, False): Published(62.53, 0.69, MINI_SOURCE),
        ("cosine", "omniglot", 5, 1, False): Published(95.41, 0.39, OMNIGLOT_SOURCE),
        ("cosine", "omniglot", 5, 5, False): Published(99.38, 0.1, OMNIGLOT_SOURCE),
        ("cosine", "mini-imagenet", 5, 1, False): Published(48.24, 0.75, MINI_SOURCE),
        ("cosine", "mini-imagenet", 5, 5, False): Published(66.43, 0.63, MINI_SOURCE),
    },
)
