"""``reptile train``: train with a live line, resume, or show what would be done."""

from __future__ import annotations

import math
from pathlib import Path

from torchreptile.algorithms.build import build_algorithm
from torchreptile.cli.commands.console import STOPPED, report_lost_output, show_lines
from torchreptile.cli.commands.decode_progress import ready
from torchreptile.core.config import Config
from torchreptile.core.device import choose_device
from torchreptile.core.distributed.launcher import is_first
from torchreptile.data.functions.tables import Tables
from torchreptile.data.leakage import find_leaks
from torchreptile.data.loading import load_functions, load_splits
from torchreptile.data.splits import SPLITS
from torchreptile.models.custom import requested_network
from torchreptile.training.callbacks import Callback
from torchreptile.training.loggers import loggers
from torchreptile.training.progress_bars import ProgressBar
from torchreptile.training.train import Run
from torchreptile.training.train import resume as resume_run
from torchreptile.training.train import train as train_run
from torchreptile.training.weights import load_weights


def train(config: Config, out: Path, log: str, model: str) -> int:
    """Meta-train with a live line; own images are decoded before, with a progress bar."""
    network, callbacks = requested_network(model), _callbacks(log)
    if config.task.data and is_first():
        ready(config.task)
    return _exit_code(train_run(config, out, callbacks, network))


def resume(out: Path, log: str, model: str) -> int:
    """Resume a run."""
    return _exit_code(resume_run(out, _callbacks(log), requested_network(model)))


def _callbacks(log: str) -> list[Callback]:
    """The progress bar, and the loggers that ``--log`` names."""
    return [ProgressBar(hints=True), *loggers(log)]


def _exit_code(run: Run) -> int:
    report_lost_output()
    return STOPPED if run.interrupted else 0


def describe(config: Config, out: Path, model: str) -> int:
    """Print what a training would do."""
    if config.outer.weights:
        load_weights(config.outer.weights)
    if config.task.regression:
        return _describe_functions(config, out, model)
    splits = load_splits(config.task)
    if (network := requested_network(model)) is not None:
        algorithm = build_algorithm(
            config,
            splits.train.image_shape,
            choose_device(config.run.device),
            network=network,
            classes=len(splits.train),
        )
        show_lines(f"model: {model}, {sum(math.prod(s) for s in algorithm.shapes.values()):,} parameters")
        print(f"execution {algorithm.execution.name}: {algorithm.execution.reason}")
    val = f"{len(splits.val):,} validation classes" if splits.val else "no validation classes"
    test = f"{len(splits.test):,} test classes" if splits.has("test") else "no test classes"
    print(config.to_json())
    print(f"data: {len(splits.train):,} training classes, {val}, {test}")
    print(f"leaks: {find_leaks(splits).message(config.task.exclude_duplicates) or 'no picture is in two splits'}")
    return _describe_work(config, out)


def _describe_functions(config: Config, out: Path, model: str) -> int:
    """Describe a training on functions, which have no pictures that could be in two splits."""
    splits = load_functions(config.task)
    algorithm = build_algorithm(
        config,
        splits.train.image_shape,
        choose_device(config.run.device),
        network=requested_network(model),
        targets=splits.train.targets,
    )
    stores = {part: splits.get(part) for part in SPLITS if splits.has(part)}
    parts = [f"{part} {len(store)}" for part, store in stores.items() if isinstance(store, Tables)]
    print(config.to_json())
    print(f"data: {splits.train.image_shape[0]} inputs, {splits.train.targets} targets; tasks: ", end="")
    print(", ".join(parts) or "drawn anew every time")
    print(f"network: {sum(math.prod(s) for s in algorithm.shapes.values()):,} parameters")
    print(f"execution {algorithm.execution.name}: {algorithm.execution.reason}")
    return _describe_work(config, out)


def _describe_work(config: Config, out: Path) -> int:
    outer, inner, task = config.outer, config.inner, config.task
    tasks = f"{outer.outer_steps:,} outer steps x {outer.meta_batch} tasks"
    if config.row.trains_by_steps:
        print(
            f"work: {tasks} x {inner.inner_steps} inner steps = "
            f"{outer.outer_steps * outer.meta_batch * inner.inner_steps:,} task-steps of "
            f"{config.training_batch} {'points' if task.regression else 'images'}"
        )
    else:
        images = task.training_way * (task.images_per_class + task.train_queries)
        print(f"work: {tasks} of {images} images")
    show_lines(f"would write {out}")
    return 0
