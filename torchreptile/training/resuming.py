"""Resuming a training: the state of its checkpoint on this device, and warnings where its numbers may change."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch

from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import shapes
from torchreptile.core.environment import sessions
from torchreptile.core.errors import RunError
from torchreptile.models.execution.choose import rounds_by_threads
from torchreptile.training.callbacks import Callback
from torchreptile.training.checkpoint import Checkpoint, Division
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.setup import TrainingSetup


def resumed_checkpoint(
    setup: TrainingSetup, checkpoint: Checkpoint, folder: RunFolder, callback: Callback
) -> Checkpoint:
    """Return the state to resume from: what the run folder holds, on this device.

    Raises:
        RunError: it does not fit the run's settings, network or images.
    """
    config, algorithm = setup.config, setup.algorithm
    if checkpoint.config.learning() != config.learning():
        raise RunError(
            f"{folder.config_file} is not what {folder.path} was trained with; settings of a run cannot change"
        )
    state, begun = checkpoint.state, algorithm.begin(config.run.seed)
    if not algorithm.fits(state.params):
        raise RunError(
            f"{folder.last}: its weights are not those of this network; it was trained with another, or is damaged"
        )
    if checkpoint.data != setup.data:
        what = "functions" if config.task.regression else "images"
        raise RunError(
            f"{folder.path} was trained on other {what} than {config.task.title} holds now; it cannot be resumed"
        )
    if _optimizer_shapes(state) != _optimizer_shapes(begun):
        raise RunError(f"{folder.last} is damaged: what its optimisers remember does not fit its weights")
    if shapes(state.averages) != shapes(begun.averages):
        raise RunError(f"{folder.last} is damaged: its averages do not fit its weights")
    _announce_division(setup, checkpoint, folder, callback)
    # Where and how to compute may be new.
    return replace(
        checkpoint,
        config=config,
        state=state.mapped(lambda tensor: tensor.to(setup.device)),
        generator=_generator_state(setup, checkpoint, folder, callback),
        device=setup.device.type,
        execution=algorithm.execution.name,
        division=setup.division(),
    )


def _announce_division(setup: TrainingSetup, checkpoint: Checkpoint, folder: RunFolder, callback: Callback) -> None:
    """Warn where the work is divided among other numbers of processes or threads, which rounds sums differently."""
    before, now = checkpoint.division, setup.division()
    changed = before.processes not in (0, now.processes)
    if setup.device.type == checkpoint.device == "cpu" and rounds_by_threads(setup.algorithm.execution.name):
        changed |= before.threads not in (0, now.threads)
    if changed:
        callback.on_warning(
            f"{folder.path} was computed by {_workers(before)} until now; "
            f"it continues with {_workers(now)}, so sums may be rounded differently"
        )


def _workers(division: Division) -> str:
    """The processes and threads of a division, such as "2 processes with 1 thread each"."""
    processes, threads = division.processes, division.threads
    counted = f"{threads} thread{'s' * (threads != 1)}"
    return counted if processes == 1 else f"{processes} processes with {counted} each"


def _generator_state(
    setup: TrainingSetup, checkpoint: Checkpoint, folder: RunFolder, callback: Callback
) -> torch.Tensor:
    """Return the state of the generator of tasks and mini-batches. A run from another kind of device, whose generators
    are different ones, gets a fresh one that the same seed and step always give.

    Raises:
        RunError: what the checkpoint holds is no generator's state.
    """
    generator = torch.Generator(setup.device)
    if checkpoint.device != setup.device.type:
        callback.on_warning(
            f"{folder.path} was trained on another kind of device than {setup.device} until outer step "
            f"{checkpoint.step:,}: from here on it draws other tasks than it would have drawn there"
        )
        mixed = hashlib.sha256(f"{setup.config.run.seed} {checkpoint.step}".encode()).digest()
        return generator.manual_seed(int.from_bytes(mixed[:4], "big")).get_state()
    try:
        generator.set_state(checkpoint.generator)
    except (RuntimeError, TypeError) as error:  # not its size, not its kind of numbers, or none it could be in
        raise RunError(f"{folder.last} is damaged: it holds no state of a generator") from error
    return checkpoint.generator


def _optimizer_shapes(state: MetaState) -> list[dict[str, tuple[int, ...]]]:
    """Names and shapes of what the inner and the outer optimiser remember."""
    return [shapes(moments) for moments in (state.inner.v, state.outer.m, state.outer.v)]


def announce_environment(setup: TrainingSetup, folder: RunFolder, callback: Callback) -> None:
    """Warn where hardware or software, on which the rounding of sums depends, differs from the last session's.

    Args:
        setup: of the resumed training.
        folder: the run folder, in which this session is not recorded yet.
        callback: receives the warning.
    """
    try:
        before = sessions(folder.environment())[-1]
    except RunError:  # killed just before it was written
        return
    now = setup.environment()
    places = ("torch", "library", "gpu" if setup.device.type == "cuda" else "processor")
    changed = [name for name in places if before.get(name) and now.get(name) and before[name] != now[name]]
    if changed:
        callback.on_warning(
            f"{folder.path} was computed with {_named(before, changed)} until now; "
            f"it continues with {_named(now, changed)}, so sums may be rounded differently"
        )


def _named(environment: dict[str, Any], names: list[str]) -> str:
    """What an environment has under some names, such as "torch 2.13.0, AMD EPYC"."""
    kinds = {"torch": "torch ", "library": "native library "}
    return ", ".join(f"{kinds.get(name, '')}{environment[name]}" for name in names)
