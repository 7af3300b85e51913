"""Meta-LSTM's row: Ravi and Larochelle, ICLR 2017; at 20-way the numbers are those of Li et al. 2017.

Queries are normalised by running averages over the support set, so every evaluation is inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchreptile.core.config.algorithm import AlgorithmRow, AlgorithmSettings, Published
from torchreptile.core.config.config import Config
from torchreptile.core.config.validation import at_least

OMNIGLOT_SOURCE = "Ravi and Larochelle 2017, table 1"
MINI_SOURCE = "Li et al. 2017, table 3"


@dataclass(frozen=True)
class MetaLSTMSettings(AlgorithmSettings):
    """Settings of the meta-learned LSTM optimiser."""

    meta_lstm_units: int = 20
    """meta-lstm: units of the LSTM that reads losses and gradients."""
    meta_lstm_filters: int = 32
    """meta-lstm: filters of every convolution of the learner."""

    def check_values(self) -> None:
        """Refuse sizes below 1."""
        at_least(1, meta_lstm_units=self.meta_lstm_units, meta_lstm_filters=self.meta_lstm_filters)


def image_settings(config: Config) -> dict[str, Any]:
    """Return the published settings for images: one task per step, the shots of the test tasks, 15 queries per class.

    Ravi and Larochelle 2017. Every update is on the full support set.
    """
    updates = 12 if config.task.shots == 1 else 5
    return {
        "train_shots": 0,
        "train_queries": 15,
        "queries": 15,
        "inner_batch": 0,
        "inner_steps": updates,
        "eval_steps": updates,
        "eval_batch": 0,
        "meta_batch": 1,
        "outer_steps": 50_000,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-3,
        "outer_clip": 0.25,
        "outer_clip_by": "norm",
    }


def function_settings(config: Config) -> dict[str, Any]:
    """Return settings for functions: those for images with more than one shot, as none were published."""
    return image_settings(config) | {"train_queries": config.evaluation.queries, "queries": config.evaluation.queries}


ROW = AlgorithmRow(
    name="meta-lstm",
    title="Meta-LSTM",
    implementation="torchreptile.algorithms.meta_lstm:MetaLSTM",
    settings=MetaLSTMSettings,
    learns_from_queries=True,
    learns_rates=True,
    fits_functions=True,
    change_image_settings=image_settings,
    change_function_settings=function_settings,
    published={
        ("", "mini-imagenet", 5, 1, False): Published(43.44, 0.77, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 5, False): Published(60.6, 0.71, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 20, 1, False): Published(16.7, None, MINI_SOURCE),
        ("", "mini-imagenet", 20, 5, False): Published(26.06, None, MINI_SOURCE),
    },
)
