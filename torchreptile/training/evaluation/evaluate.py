"""Accuracy, transductive and not, or the error of functions, over many episodes: mean and 95% confidence interval."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torchreptile.algorithms import build_algorithm
from torchreptile.core.config import FUNCTIONS, Config, TaskConfig
from torchreptile.core.config.validation import LARGEST_SEED
from torchreptile.core.device import choose_device, keep_freed_memory, precision_of
from torchreptile.core.distributed.process_group import joined
from torchreptile.core.environment import environment
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.core.files import write_text
from torchreptile.data.functions.tables import Scale, Tables
from torchreptile.data.leakage import find_leaks, without_leaks
from torchreptile.data.loading import load_functions, load_splits
from torchreptile.data.own_images.dataset import divided_by_ratio
from torchreptile.data.samplers import Store, sampler_of
from torchreptile.data.splits import Split, resolve_scheme
from torchreptile.models.blueprint import Network
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import MODES as MODES
from torchreptile.training.evaluation.results import Accuracy as Accuracy
from torchreptile.training.evaluation.results import Fit as Fit
from torchreptile.training.evaluation.results import Measured as Measured
from torchreptile.training.evaluation.results import Result as Result
from torchreptile.training.weights import Kept, MetaWeights, load_weights


def evaluate(
    source: str | Path | MetaWeights,
    split: Split = "test",
    *,
    dataset: str | None = None,
    data_root: str | None = None,
    data: str | None = None,
    table: str | None = None,
    shots: int | None = None,
    way: int | None = None,
    episodes: int | None = None,
    eval_steps: int | None = None,
    eval_batch: int | None = None,
    finetune_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Kept = "last",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    network: Network | None = None,
    execution: str = "auto",
    precision: str = "fp32",
    task_chunk: int = 0,
) -> Evaluation:
    """Measure a run or shipped weights on classes of one split; a run folder keeps the result as eval-*.json.

    Under torchrun every process calls this alike; they share the episodes, and rank 0 writes.

    Args:
        source: run folder, name of shipped weights, or what :func:`load_weights` gave.
        split: which classes; the division into splits is the training's own, so test classes stay unseen.
        dataset: another data set than the one trained on, with its default division.
        data_root: the folder that holds the data set, where it is not the training's.
        data: own images, brought to the size of those that the weights were trained on. If that was on own images
            too, they are divided as those were: so name a folder that has moved, or other classes for testing.
        table: own functions, likewise; they are standardised as the training's were.
        shots, way, episodes, eval_steps, eval_batch, finetune_steps: instead of the training's settings; another way
            than the weights have outputs is refused.
        seed: of episodes and mini-batches.
        device: auto, cpu, cuda or cuda:N.
        checkpoint: of a run folder, the last one or the one with the best validation accuracy.
        on_progress: called with the episodes done and their total.
        network: what the weights belong to, if not the one published with the algorithm.
        execution, precision, task_chunk: how to compute; the numbers change by rounding alone.

    Raises:
        RunError, ConfigError, DataError: weights, settings or data cannot be used.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed}; it must be from 0 to {LARGEST_SEED}")
    where = choose_device(device)
    keep_freed_memory()
    learned = source.to(where) if isinstance(source, MetaWeights) else load_weights(source, where, checkpoint)
    wanted = {"shots": shots, "way": way, "eval_episodes": episodes, "eval_steps": eval_steps, "eval_batch": eval_batch}
    wanted |= {"finetune_steps": finetune_steps}
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    changes |= {"execution": execution, "precision": precision, "task_chunk": task_chunk}
    if dataset is not None and dataset != learned.config.task.dataset:
        changes |= {"dataset": dataset, "split_scheme": "default", "split_seed": 0, "data_root": ""}
        changes |= {"data": "", "image_size": 0, "grey": False, "split_ratio": "", "table": "", "targets": ""}
    if data_root is not None:
        changes |= {"data_root": data_root}
    if data is not None:
        changes |= _own_images(learned.config.task, data)
    if table is not None:
        changes |= {"table": table}
    _check_kind(learned, dataset or ("folder" if data else "table" if table else ""))
    own, name = learned.config.evaluation.eval_steps, learned.config.method.algorithm
    if eval_steps not in (None, own) and not learned.config.method.adapts_by_steps:
        raise ConfigError(f"eval_steps is {eval_steps}, but {name} takes no inner steps in an episode; leave it out")
    config = learned.config.replace(**changes)
    config = config.replace(split_scheme=resolve_scheme(config.task.dataset, config.task.split_scheme))
    if data is None and table is None:
        _check_division(learned, config.task)
    store = split_store(config, split, learned.scale).to(where)
    evaluated = config.evaluation
    sampler = sampler_of(store, config.task.way, config.task.shots, evaluated.queries)
    total, work = evaluated.eval_episodes, evaluated.eval_episodes * evaluated.eval_steps
    with joined() as processes, precision_of(where, precision):
        algorithm = build_algorithm(config, store.image_shape, where, work, processes, network, targets=store.targets)
        learned.require_fit(algorithm)
        start = time.monotonic()
        result = measure(algorithm, learned.state, sampler, total, seed, lambda done: on_progress(done, total))
    seconds = time.monotonic() - start
    evaluation = Evaluation(
        learned.name,
        learned.step,
        learned.config.task.title,
        split,
        config,
        result,
        seed,
        round(seconds, 3),
        environment(where),
    )
    if learned.folder is not None and processes.rank == 0:
        file = learned.folder / evaluation.file_name
        try:
            write_text(file, evaluation.to_json() + "\n")
        except OSError as error:  # a result that took long to measure must not be lost with its file
            warnings.warn(
                f"{file} was not written ({error.strerror}); the result is returned all the same", stacklevel=2
            )
    return evaluation


def _own_images(trained: TaskConfig, data: str) -> dict[str, Any]:
    """The settings with which own images fit weights trained as ``trained`` says."""
    if trained.data:
        return {"data": data}
    channels, side, _ = trained.image_shape
    own = {"data": data, "image_size": side, "grey": channels == 1}
    return own | {"data_root": "", "split_scheme": "default", "split_seed": 0}


def _check_division(learned: MetaWeights, task: TaskConfig) -> None:
    """Refuse own data that are divided otherwise than in the training: what was trained on would be tested on."""
    if not learned.data or not (task.table or (task.data and divided_by_ratio(task))):
        return
    if task.table:
        found, what, fix = load_functions(task).train.fingerprint, "functions", "--table"
    else:
        splits = load_splits(task)
        train = without_leaks(splits.train, find_leaks(splits)) if task.exclude_duplicates else splits.train
        found, what, fix = train.fingerprint, "images", "--data with folders train, val and test of classes"
    if found != learned.data:
        members, own = task.members, task.data or task.table
        raise RunError(
            f"{learned.name} was trained on other {what} than {own} holds now, so {members} it was trained on may "
            f"count as test {members}; bring the {what} back, or give {fix}"
        )


def _check_kind(learned: MetaWeights, dataset: str) -> None:
    """Refuse functions for weights that label images, and images for weights that fit functions."""
    trained = learned.config.task
    if dataset and (dataset in FUNCTIONS) != trained.regression:
        kinds = ("functions", "images") if trained.regression else ("images", "functions")
        raise ConfigError(f"{learned.name} was trained on {kinds[0]} ({trained.title}), and {dataset} has {kinds[1]}")


def split_store(config: Config, split: Split, scale: Scale | None = None) -> Store:
    """The images, or functions, of one split.

    Args:
        config: says which.
        split: train, val or test.
        scale: what tables are standardised by, as the training's were; by default by their own training tasks.

    Raises:
        DataError: there is no such split, or its data are damaged.
    """
    if not config.task.regression:
        return load_splits(config.task).get(split)
    store = load_functions(config.task).get(split)
    return store.scaled_by(scale) if isinstance(store, Tables) and scale is not None else store
