"""Evaluate meta-learned weights over many episodes: accuracies in both modes, or the error of fitted functions."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, Unpack

from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.config import DATASETS, FUNCTIONS, Config, TaskConfig
from torchreptile.core.config.validation import LARGEST_SEED
from torchreptile.core.device import choose_device, keep_freed_memory, precision_of
from torchreptile.core.distributed.process_group import Processes, joined
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
from torchreptile.training.evaluation.divergence import diverged
from torchreptile.training.evaluation.episode_table import EpisodeTable
from torchreptile.training.evaluation.measure import measure_episodes
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.same_settings import require_same_settings
from torchreptile.training.weights import CheckpointName, MetaWeights, load_weights


class DataOptions(TypedDict, total=False):
    """Data to evaluate on in place of the training's.

    Attributes:
        dataset: another data set, with its default splits.
        data_root: the folder that holds the data set.
        data: your own images, resized to the images that the weights were trained on. Weights trained on your own
            images split them as in training: give a folder that has moved, or separate test classes.
        table: your own table of functions, likewise; it is standardised as the training's was.
    """

    dataset: str | None
    data_root: str | None
    data: str | None
    table: str | None


class EpisodeOptions(TypedDict, total=False):
    """Episodes and adaptation; settings that are None or missing are the training's.

    Attributes:
        shots: support images per class.
        way: classes per episode; refused if the weights have a head for another number.
        episodes: number of episodes, at least 2.
        queries: query images per class, or query points.
        eval_steps: inner steps per episode.
        eval_batch: images in an inner batch.
        inner_lr: learning rate of the inner steps.
        finetune_steps: steps by which Matching and Prototypical Networks fine-tune their embedding in every episode.
        seed: seed of episodes and inner batches, 0 by default.
    """

    shots: int | None
    way: int | None
    episodes: int | None
    queries: int | None
    eval_steps: int | None
    eval_batch: int | None
    inner_lr: float | None
    finetune_steps: int | None
    seed: int


class ComputeOptions(TypedDict, total=False):
    """How to compute; the numbers change by rounding alone.

    Attributes:
        device: auto (the default), cpu, cuda or cuda:N.
        execution: auto, or the name of an execution.
        precision: fp32, tf32 or bf16.
        task_chunk: episodes computed at a time; 0 for as many as fit.
    """

    device: str
    execution: str
    precision: str
    task_chunk: int


class EvaluationOptions(DataOptions, EpisodeOptions, ComputeOptions, total=False):
    """All keyword options of :func:`evaluate`.

    Attributes:
        checkpoint: which checkpoint of a run folder: ``last`` (the default), or ``best`` on the validation classes.
    """

    checkpoint: CheckpointName


def evaluate(
    source: str | Path | MetaWeights,
    split: Split = "test",
    *,
    network: Network | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    **options: Unpack[EvaluationOptions],
) -> Evaluation:
    """Evaluate a run or shipped weights on the classes of one split.

    The result of a run is saved in its folder as ``eval-*.json``. Under torchrun every process makes the same call;
    they share the episodes, and rank 0 writes the file.

    Args:
        source: run folder, name of shipped weights, or the return value of :func:`load_weights`.
        split: train, val or test; classes are split as in training, so test classes are unseen.
        network: the network of the weights, if it is not the one published with the algorithm.
        on_progress: called with the number of episodes done and their total.
        options: ``dataset``, ``data_root``, ``data``, ``table`` (see :class:`DataOptions`); ``shots``, ``way``,
            ``episodes``, ``queries``, ``eval_steps``, ``eval_batch``, ``inner_lr``, ``finetune_steps``, ``seed`` (see
            :class:`EpisodeOptions`); ``device``, ``execution``, ``precision``, ``task_chunk`` (see
            :class:`ComputeOptions`); ``checkpoint`` (``last`` or ``best``).

    Returns:
        The result with its settings, seed, time and environment.

    Raises:
        TypeError: an option does not exist.
        RunError: the weights cannot be read, or their training data have changed.
        ConfigError: an option does not fit the weights.
        DataError: the data are missing or damaged.
        DivergedEvaluationError: predictions of some episodes are not finite numbers; the error holds the evaluation.

    Example:
        >>> evaluation = evaluate("glyphs-5way", episodes=10, shots=1, device="cpu")
        >>> evaluation.result.inductive.mean > 0.7
        True
    """
    _check_names(options)
    seed = _seed(options)
    device = choose_device(options.get("device", "auto"))
    keep_freed_memory()
    if isinstance(source, MetaWeights):
        weights = source.to(device)
    else:
        weights = load_weights(source, device, options.get("checkpoint", "last"))
    config = _settings(weights, options)
    store = split_store(config, split, weights.scale).to(device)
    sampler = sampler_of(store, config.task.way, config.task.shots, config.evaluation.queries)
    total, steps = config.evaluation.eval_episodes, config.evaluation.eval_steps
    with joined() as processes, precision_of(device, config.run.precision):
        _require_alike(processes, config, seed, weights, store)
        algorithm = build_algorithm(
            config, store.image_shape, device, total * steps, processes, network, targets=store.targets
        )
        weights.require_fit(algorithm)
        start = time.monotonic()
        scores = measure_episodes(algorithm, weights.state, sampler, total, seed, lambda done: on_progress(done, total))
        seconds = round(time.monotonic() - start, 3)
    result, table = scores.result(), EpisodeTable.of(scores, sampler, total, seed)
    evaluation = Evaluation(
        weights.name,
        weights.step,
        weights.config.task.title,
        split,
        config,
        result,
        seed,
        seconds,
        environment(device) | algorithm.context.described(device),
        table,
    )
    if weights.folder is not None and processes.rank == 0:
        _save(evaluation, weights.folder)
    if result.diverged:
        raise diverged(evaluation)
    return evaluation


def _require_alike(processes: Processes, config: Config, seed: int, weights: MetaWeights, store: Store) -> None:
    """Refuse processes that would add up the accuracies of different evaluations.

    Raises:
        ConfigError: settings, seed, weights or data of a process are not those of the first.
    """
    if processes.size == 1:
        return
    digest = hashlib.sha256()
    for parameter in weights.state.params.values():
        digest.update(parameter.detach().cpu().contiguous().numpy().tobytes())
    require_same_settings(config, processes)
    mine = [seed, digest.hexdigest(), store.fingerprint]
    first = json.loads(processes.from_first(json.dumps(mine).encode()))
    with processes.together():
        for name, here, there in zip(("seed", "weights", "data"), mine, first, strict=True):
            if here != there:
                raise ConfigError(f"the {name} of this process are not those of the first process")


def split_store(config: Config, split: Split, scale: Scale | None = None) -> Store:
    """Load the images, or functions, of one split.

    Args:
        config: the settings of the task.
        split: train, val or test.
        scale: the standardisation of tables, as in training; by default that of their own training tasks.

    Raises:
        DataError: there is no such split, or its data are damaged.
    """
    if not config.task.regression:
        return load_splits(config.task).get(split)
    store = load_functions(config.task).get(split)
    return store.scaled_by(scale) if isinstance(store, Tables) and scale is not None else store


def _check_names(options: EvaluationOptions) -> None:
    """Refuse an option that does not exist."""
    known = EvaluationOptions.__optional_keys__
    if unknown := sorted(options.keys() - known):
        raise TypeError(f"unknown option {unknown[0]}; the options are {', '.join(sorted(known))}")


def _seed(options: EvaluationOptions) -> int:
    """The seed, if a generator takes it."""
    seed = options.get("seed", 0)
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed}; it must be from 0 to {LARGEST_SEED}")
    return seed


def _settings(weights: MetaWeights, options: EvaluationOptions) -> Config:
    """The settings of the evaluation, checked against the weights."""
    data, table = options.get("data"), options.get("table")
    _check_kind(weights, options.get("dataset") or ("folder" if data else "table" if table else ""))
    _check_steps(weights.config, options.get("eval_steps"))
    changes = _episode_changes(options) | _compute_changes(options) | _data_changes(weights.config.task, options)
    config = weights.config.replace(**changes).with_inner_lr(options.get("inner_lr"))
    config = config.replace(split_scheme=resolve_scheme(config.task.dataset, config.task.split_scheme))
    if data is None and table is None:
        _check_split(weights, config.task)
    return config


def _episode_changes(options: EpisodeOptions) -> dict[str, Any]:
    """The given episode settings, by their names in ``Config``."""
    given = {
        "shots": options.get("shots"),
        "way": options.get("way"),
        "eval_episodes": options.get("episodes"),
        "queries": options.get("queries"),
        "eval_steps": options.get("eval_steps"),
        "eval_batch": options.get("eval_batch"),
        "finetune_steps": options.get("finetune_steps"),
    }
    return {name: value for name, value in given.items() if value is not None}


def _compute_changes(options: ComputeOptions) -> dict[str, Any]:
    """The settings of the computation; those of the training do not carry over."""
    return {
        "execution": options.get("execution", "auto"),
        "precision": options.get("precision", "fp32"),
        "task_chunk": options.get("task_chunk", 0),
    }


def _data_changes(trained: TaskConfig, options: DataOptions) -> dict[str, Any]:
    """The settings of the given data, which replace those of the training."""
    changes: dict[str, Any] = {}
    dataset, data_root = options.get("dataset"), options.get("data_root")
    data, table = options.get("data"), options.get("table")
    if dataset is not None and dataset != trained.dataset:
        changes |= {"dataset": dataset, "split_scheme": "default", "split_seed": 0, "data_root": ""}
        changes |= {"data": "", "split_ratio": "", "table": "", "targets": ""}
        if dataset in DATASETS or dataset in FUNCTIONS:  # custom ones have the images that the weights were made for
            changes |= {"image_size": 0, "grey": False, "shape": ""}
        changes |= {"augment": 0.0, "mirror": False}
    if data_root is not None:
        changes |= {"data_root": data_root}
    if data is not None:
        changes |= _own_images(trained, data)
    if table is not None:
        changes |= {"table": table}
    return changes


def _own_images(trained: TaskConfig, data: str) -> dict[str, Any]:
    """The settings that make a user's images fit the weights."""
    if trained.data:
        return {"data": data}
    other_splits = {"data": data, "data_root": "", "split_scheme": "default", "split_seed": 0}
    if trained.custom:
        return other_splits
    channels, side = trained.image_shape[:2]
    return other_splits | {"image_size": side, "grey": channels == 1}


def _check_kind(weights: MetaWeights, dataset: str) -> None:
    """Refuse functions for weights that classify images, and images for weights that fit functions."""
    trained = weights.config.task
    if dataset and (dataset in FUNCTIONS) != trained.regression:
        kinds = ("functions", "images") if trained.regression else ("images", "functions")
        raise ConfigError(f"{weights.name} was trained on {kinds[0]} ({trained.title}), and {dataset} has {kinds[1]}")


def _check_steps(trained: Config, eval_steps: int | None) -> None:
    """Refuse a number of inner steps for an algorithm that takes none."""
    if eval_steps not in (None, trained.evaluation.eval_steps) and not trained.row.adapts_by_steps:
        name = trained.method.algorithm
        raise ConfigError(f"eval_steps is {eval_steps}, but {name} takes no inner steps in an episode; leave it out")


def _check_split(weights: MetaWeights, task: TaskConfig) -> None:
    """Refuse data split by ratio that have changed since the training: training classes could be test classes now."""
    if not weights.data or not (task.table or (task.data and divided_by_ratio(task))):
        return
    if task.table:
        found, kind, fix = load_functions(task).train.fingerprint, "functions", "--table"
    else:
        splits = load_splits(task)
        train = without_leaks(splits.train, find_leaks(splits)) if task.exclude_duplicates else splits.train
        found, kind, fix = train.fingerprint, "images", "--data with folders train, val and test of classes"
    if found != weights.data:
        members, source = task.members, task.data or task.table
        raise RunError(
            f"{weights.name} was trained on other {kind} than {source} holds now, so {members} it was trained on may "
            f"count as test {members}; bring the {kind} back, or give {fix}"
        )


def _save(evaluation: Evaluation, folder: Path) -> None:
    """Write the evaluation into its run folder; a failure is a warning, as the result took long to compute."""
    file = folder / evaluation.file_name
    try:
        write_text(file, evaluation.to_json() + "\n")
    except OSError as error:
        warnings.warn(f"{file} was not written ({error.strerror}); the result is returned anyway", stacklevel=3)
