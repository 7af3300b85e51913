"""What a training needs before its first step: data, algorithm, samplers, and the checkpoint to start from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import shapes
from torchreptile.algorithms.trial import try_training
from torchreptile.core.config import Config, TaskConfig
from torchreptile.core.device import choose_device, keep_freed_memory
from torchreptile.core.distributed.process_group import ALONE, Processes
from torchreptile.core.environment import environment
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.augmentation import augmenting
from torchreptile.data.image_store import ImageStore
from torchreptile.data.leakage import find_leaks, without_leaks
from torchreptile.data.loading import load_functions, load_splits
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.data.splits import resolve_scheme
from torchreptile.models.blueprint import Network
from torchreptile.models.custom import network_name
from torchreptile.models.execution.task_chunks import ChunkSizes
from torchreptile.training.callbacks import Callback
from torchreptile.training.checkpoint import Checkpoint, Division
from torchreptile.training.resize_head import with_outputs
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.weights import MetaWeights, load_weights

# For choosing the execution of a run limited by time: about so long on two CPU cores, and on a GPU.
SECONDS_PER_TASK_STEP = {"cpu": 0.003, "cuda": 0.00015}


class Computed(NamedTuple):
    """What a run was computed by before it was stopped.

    Attributes:
        device: the kind of device, such as cpu.
        execution: the execution's name.
        task_chunk: tasks computed at a time; 0 if none has been computed.
        unrolled_steps: inner steps whose graph was in memory at a time; 0 for algorithms without such graphs.
    """

    device: str
    execution: str
    task_chunk: int = 0
    unrolled_steps: int = 0

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Computed:
        """Return what a checkpoint says of it."""
        division = checkpoint.division
        return cls(checkpoint.device, checkpoint.execution, division.task_chunk, division.unrolled_steps)


@dataclass(frozen=True, eq=False)
class TrainingSetup:
    """Everything that stays the same while a training runs.

    Attributes:
        config: all settings.
        device: where it computes.
        algorithm: gives the meta-gradient, adapts and predicts.
        sampler: of training tasks.
        monitored: samplers of the episodes that are measured on the way, by split.
        data: fingerprint of the training images or functions.
        processes: the processes that share the tasks.
    """

    config: Config
    device: torch.device
    algorithm: Algorithm
    sampler: Sampler
    monitored: dict[str, Sampler]
    data: str
    processes: Processes = ALONE

    def environment(self) -> dict[str, Any]:
        """Return the contents of env.json: command, versions, hardware, and how it computes."""
        return environment(self.device) | self.algorithm.context.described(self.device)

    def division(self) -> Division:
        """Return how the work is divided now."""
        return Division(torch.get_num_threads(), self.processes.size, *self.algorithm.chunks.sizes)


def load_training_data(task: TaskConfig, callback: Callback) -> tuple[Store, Store | None]:
    """Load what to train on, and what chooses the best checkpoint, None where there are no validation classes.

    Images of the training classes that are in other splits too are reported, and left out if the settings ask for it.

    Raises:
        ConfigError, DataError: unknown, missing or damaged data.
    """
    if task.regression:
        functions = load_functions(task)
        return functions.train, functions.val
    splits = load_splits(task)
    leaks = find_leaks(splits)
    if message := leaks.message(excluded=task.exclude_duplicates):
        callback.on_warning(message)
    return without_leaks(splits.train, leaks) if task.exclude_duplicates else splits.train, splits.val


def build_setup(
    config: Config,
    folder: RunFolder,
    callback: Callback,
    processes: Processes = ALONE,
    network: Network | None = None,
    before: Computed | None = None,
) -> TrainingSetup:
    """Load the data, build the algorithm and the samplers.

    Args:
        config: all settings.
        folder: named in warnings.
        callback: receives warnings.
        processes: the processes that share the tasks.
        network: makes the module to train; by default the one published with the algorithm.
        before: what a resumed run was computed by, which it keeps where the settings leave that open.

    Raises:
        ConfigError, DataError: settings or data cannot be used, in this or another process.
    """
    if processes.size > config.outer.meta_batch:
        raise ConfigError(
            f"meta_batch is {config.outer.meta_batch}; that is too few tasks for {processes.size} processes"
        )
    with processes.together():
        device = choose_device(config.run.device)
        keep_freed_memory()
        train, val = load_training_data(config.task, callback)
    first = processes.from_first(train.fingerprint.encode()).decode()
    with processes.together():
        if train.fingerprint != first:
            raise DataError(f"{config.task.title} holds other training data here than for the first process")
    store = train.to(device)
    classes = len(store) if isinstance(store, ImageStore) else 0
    build = partial(
        build_algorithm, config, store.image_shape, device, _task_steps(config, device), processes, network, classes,
        store.targets,
    )  # fmt: skip
    # A choice made on another kind of device does not apply to this one.
    keep = before is not None and before.device == device.type
    algorithm = _computed_as(build, before, config, folder, callback) if before and keep else build()
    task, queries = config.task, config.evaluation.queries
    monitored: dict[str, Sampler] = {}
    if val is not train:  # they are one where every task is drawn anew
        monitored["train"] = sampler_of(store, task.way, task.shots, queries)
    if val is not None:
        monitored["val"] = sampler_of(val.to(device), task.way, task.shots, queries)
    sampler = augmenting(algorithm.sampler(store), task)
    if network is not None:
        with processes.together():
            try_training(algorithm, sampler, next(iter(monitored.values())), network_name(network))
    return TrainingSetup(config, device, algorithm, sampler, monitored, train.fingerprint, processes)


def _computed_as(
    build: partial[Algorithm], before: Computed, config: Config, folder: RunFolder, callback: Callback
) -> Algorithm:
    """Build the algorithm with the execution that the run had before; warn where it gets another."""
    reason = ""
    try:
        algorithm = build(execution=before.execution, began=ChunkSizes(before.task_chunk, before.unrolled_steps))
    except ConfigError as error:
        if config.run.execution != "auto":
            raise
        algorithm, reason = build(), f", which is not available here ({error})"
    if algorithm.execution.name != before.execution:
        callback.on_warning(
            f"{folder.path} was computed with execution {before.execution} until now{reason}; "
            f"it resumes with {algorithm.execution.name}, whose sums are rounded differently"
        )
    return algorithm


def planned_execution(config: Config, device: torch.device) -> str:
    """Return the name of the execution that a new training on a built-in data set would choose.

    Args:
        config: all settings.
        device: where it would compute.

    Raises:
        ConfigError: the settings cannot be used.
    """
    task = config.task
    shape, targets = ((1,), 1) if task.regression else (task.image_shape, 0)
    steps = _task_steps(config, device)
    return build_algorithm(config, shape, device, steps, classes=task.way, targets=targets).execution.name


def _task_steps(config: Config, device: torch.device) -> float:
    """About how many inner steps of one task this training will do."""
    outer = config.outer
    by_time = 60 * outer.max_minutes / SECONDS_PER_TASK_STEP[device.type]
    by_steps = outer.outer_steps * outer.meta_batch * config.inner.inner_steps
    return min(by_steps, by_time) if outer.max_minutes else by_steps


def first_checkpoint(setup: TrainingSetup) -> Checkpoint:
    """Return the state before the first outer step: same seed, same state.

    Raises:
        ConfigError, RunError: the weights to start from cannot be used.
    """
    seed = setup.config.run.seed
    return Checkpoint(
        setup.config,
        starting_state(setup),
        step=0,
        seconds=0.0,
        generator=torch.Generator(setup.device).manual_seed(seed).get_state(),
        metrics_bytes=0,
        losses=(0.0, 0),
        best=-math.inf if setup.config.task.regression else -1.0,
        data=setup.data,
        device=setup.device.type,
        execution=setup.algorithm.execution.name,
        scale=setup.sampler.scale,
        division=setup.division(),
    )


def starting_state(setup: TrainingSetup) -> MetaState:
    """Return freshly drawn weights, or those that the settings name, with a head for this training's classes.

    The inner optimiser's state comes with the weights; the outer optimiser starts anew.

    Raises:
        ConfigError: the weights do not fit the network, or saw classes that are test classes now.
        RunError: they cannot be read.
    """
    config, begun = setup.config, setup.algorithm.begin(setup.config.run.seed)
    if not config.outer.weights:
        return begun
    weights = load_weights(config.outer.weights, setup.device)
    _require_same_split(weights, config.task)
    inner = weights.state.inner
    if not inner.v or not begun.inner.v:  # trained with plain SGD, or to be trained with it
        weights = replace(weights, state=replace(weights.state, inner=begun.inner))
    if weights.state.params.keys() == setup.algorithm.shapes.keys():
        weights = with_outputs(weights, setup.algorithm)
    weights.require_fit(setup.algorithm)
    state = weights.state
    averages = state.averages if shapes(state.averages) == shapes(begun.averages) else begun.averages
    return replace(begun, params=state.params, inner=state.inner.rescaled(begun.inner.images), averages=averages)


def _require_same_split(weights: MetaWeights, task: TaskConfig) -> None:
    """Refuse weights that were trained on the same data set divided otherwise: they saw classes that are tested on.

    Raises:
        ConfigError: they were.
    """
    before = weights.config.task
    if before.dataset != task.dataset or task.drawn or (before.data, before.table) != (task.data, task.table):
        return
    divided = [
        (resolve_scheme(one.dataset, one.split_scheme), one.split_seed, one.split_ratio) for one in (before, task)
    ]
    if divided[0] != divided[1]:
        (scheme, seed, _), (wanted, wanted_seed, _) = divided
        raise ConfigError(
            f"{weights.name} was trained on {task.title} divided by {scheme} (seed {seed}); divided by {wanted} (seed "
            f"{wanted_seed}) its training classes would be among those tested on; add --split-scheme {scheme} "
            f"--split-seed {seed}"
        )
