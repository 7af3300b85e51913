"""The row of training from scratch on every support set."""

from __future__ import annotations

from typing import Any

from torchreptile.core.config.algorithm import AlgorithmRow
from torchreptile.core.config.config import Config


def own_settings(config: Config) -> dict[str, Any]:
    """Return settings for images and functions: Reptile's, with a fresh inner optimiser, and a single outer step."""
    return {"inner_state": "reset", "outer_steps": 1, "meta_batch": 1}


ROW = AlgorithmRow(
    name="scratch",
    title="From scratch",
    implementation="torchreptile.algorithms.scratch:Scratch",
    meta_learns=False,
    trains_by_steps=False,
    plain_steps=True,
    fits_functions=True,
    change_image_settings=own_settings,
    change_function_settings=own_settings,
)
