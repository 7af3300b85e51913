"""Small, easy data sets made on the spot, and what several test files need to hold both sides together."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from torchreptile.algorithms.build import algorithm_class
from torchreptile.core.config import Config
from torchreptile.core.config.algorithm_table import algorithm_names, algorithm_row
from torchreptile.core.config.presets import for_algorithm
from torchreptile.data.image_store import ImageStore
from torchreptile.data.splits import MissingSplit, Splits
from torchreptile.models.blueprint import initial_params
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.native_library import native_library

REPOSITORY = Path(__file__).parents[1]


def easy_store(
    classes: int = 30, images: int = 20, seed: int = 0, shape: tuple[int, int, int] = (1, 28, 28), noise: float = 0.35
) -> ImageStore:
    """Noisy copies of one coarse random pattern per class: square blocks of grey, pixels shaken by ``noise``.

    The blocks' side is a seventh of the image's, so 28 x 28 images have 7 x 7 blocks.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, height, _ = shape
    block = height // 7
    coarse = torch.rand(classes, channels, 7, 7, generator=generator)
    prototypes = coarse.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3).repeat_interleave(images, dim=0)
    shaken = prototypes + noise * torch.randn(prototypes.shape, generator=generator)
    return ImageStore(
        images=(shaken.clamp(0, 1) * 255).to(torch.uint8),
        class_sizes=torch.full((classes,), images),
        class_names=tuple(f"pattern{i:02d}" for i in range(classes)),
        name=f"easy{seed}",
    )


TINY = (1, 7, 7)  # an outer step on such images takes a tenth of one on 28 x 28


def easy_splits(with_val: bool = True, shape: tuple[int, int, int] = TINY) -> Splits:
    """Thirty training classes; others for validation and test."""
    train, val, test = (easy_store(classes, 20, seed, shape) for seed, classes in enumerate((30, 10, 15)))
    return Splits(train, val if with_val else MissingSplit("easy has no val classes"), test)


# What makes the networks of those that have their own small too.
MINIATURES: dict[str, dict[str, object]] = {
    "mann": {"mann_units": 9, "mann_slots": 7, "mann_width": 5, "mann_heads": 2},
    "meta-lstm": {"meta_lstm_units": 4, "meta_lstm_filters": 6},
}

FIT_FUNCTIONS = [name for name in algorithm_names() if algorithm_row(name).fits_functions]


def small_config(**changes: object) -> Config:
    """Settings for runs of a second: 3-way, few images, few steps, on the CPU; the rest is the algorithm's own."""
    algorithm = str(changes.get("algorithm", "reptile"))
    config = for_algorithm(algorithm, Config())
    if config.row.learns_from_queries:
        config = config.replace(train_queries=2)
    if config.outer.outer_optimizer == "adam":
        config = config.replace(outer_step_size=0.008, outer_step_size_final=0.0)  # so few steps must be large
    config = config.replace(
        way=3, train_way=0, train_shots=4, inner_batch=5, inner_steps=3, outer_steps=6, meta_batch=3,
        eval_steps=4, eval_batch=3, eval_episodes=20, queries=1, monitor_every=2, monitor_episodes=4,
        device="cpu", execution="grouped",
    )  # fmt: skip
    return config.replace(**changes)


def double_params(config: Config, shape: tuple[int, int, int] = (1, 28, 28)) -> Params:
    """The package's initial weights in float64, with biases and BatchNorm moved off 0 and 1 so that errors show."""
    network = algorithm_class(config.method.algorithm).network(config)
    return shaken(initial_params(network, shape, config.task.way, config.run.seed))


def shaken(params: Params) -> Params:
    """These weights in float64, with all that are in one axis moved by noise."""
    generator = torch.Generator().manual_seed(99)
    moved = {name: p.double() for name, p in params.items()}
    for p in moved.values():
        if p.ndim == 1:
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return moved


def skip_without_native(execution: str = "native") -> None:
    """Skip a test that needs compiled code of our own where there is no compiler."""
    if execution == "native":
        if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++ clang++").split()):
            pytest.skip("no native execution: there is no C++ compiler")
        native_library()  # where there is one, code that it does not take is a failure


def drawn_orders(tasks: int, passes: int, images: int, generator: torch.Generator) -> list[list[list[int]]]:
    """The shuffles that the package draws from ``generator``: per task, per pass, the order of its images.

    The one place where the tests lean on the package: on which random numbers it takes, not on what it does with them.
    """
    return torch.rand(tasks, passes, images, generator=generator).argsort(dim=2).tolist()


def killable_config(outer_steps: int) -> Config:
    """A run that saves after every outer step and measures often: something is being written at most moments."""
    return small_config(outer_steps=outer_steps, save_minutes=0.0, monitor_every=4, eval_steps=1)


def load_script(folder: str, name: str) -> ModuleType:
    """Load a script of tools/ or examples/, which are no packages, as a module."""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", REPOSITORY / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
