"""MAML's row: Finn, Abbeel, Levine 2017, arXiv 1703.03400."""

from __future__ import annotations

from typing import Any

from torchreptile.core.config.algorithm import AlgorithmRow, Published
from torchreptile.core.config.config import Config

OMNIGLOT_SOURCE = "Finn et al. 2017, table 1"
MINI_SOURCE = "Li et al. 2017, table 3"


def image_settings(config: Config) -> dict[str, Any]:
    """Return MAML's published settings for images: inner steps on the full support set, and Adam at a constant 1e-3.

    Finn, Abbeel, Levine 2017, appendix A.1. Their code divides the inner loss by the shots once more; here the inner
    learning rate accounts for that.
    """
    task, large = config.task, config.task.large_images
    if large:
        lr, steps, eval_steps, meta_batch, queries = 0.01, 5, 10, 4 if task.shots == 1 else 2, 15
    elif task.way < 20:
        lr, steps, eval_steps, meta_batch, queries = 0.4, 1, 3, 32, task.shots
    else:
        lr, steps, eval_steps, meta_batch, queries = 0.1, 5, 5, 16, task.shots
    return {
        "train_shots": 0,
        "train_queries": queries,
        "inner_optimizer": "sgd",
        "inner_lr": lr / task.shots,
        "inner_batch": 0,
        "inner_steps": steps,
        "eval_steps": eval_steps,
        "eval_batch": 0,
        "queries": task.shots,  # in evaluation as many as there are shots
        "outer_steps": 60_000,
        "meta_batch": meta_batch,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-3,
        "outer_clip": 10.0 if large else 0.0,
    }


def function_settings(config: Config) -> dict[str, Any]:
    """Return MAML's published settings for functions: one inner step of 0.01 on 10 points, and Adam.

    Finn et al. 2017, section 5.1. The meta-batch of 25 tasks, 70,000 outer steps and Adam's 1e-3 are those of their
    code.
    """
    return {
        "train_shots": 0, "train_queries": config.evaluation.queries,
        "inner_optimizer": "sgd", "inner_lr": 0.01, "inner_batch": 0, "inner_steps": 1, "eval_batch": 0,
        "outer_steps": 70_000, "meta_batch": 25,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_step_size_final": 1e-3,
    }  # fmt: skip


ROW = AlgorithmRow(
    name="maml",
    title="MAML",
    implementation="torchreptile.algorithms.maml:MAML",
    learns_from_queries=True,
    sgd_only=True,
    fits_functions=True,
    change_image_settings=image_settings,
    change_function_settings=function_settings,
    published={
        ("", "omniglot", 5, 1, True): Published(98.7, 0.4, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 5, True): Published(99.9, 0.1, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 1, True): Published(95.8, 0.3, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 5, True): Published(98.9, 0.2, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 1, True): Published(48.7, 1.84, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 5, True): Published(63.11, 0.92, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 20, 1, True): Published(16.49, 0.58, MINI_SOURCE),
        ("", "mini-imagenet", 20, 5, True): Published(19.29, 0.29, MINI_SOURCE),
    },
)
