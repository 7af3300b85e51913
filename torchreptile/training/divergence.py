"""What made a training diverge: the steps of its inner loops, or its outer steps."""

from __future__ import annotations

import math
from contextlib import suppress

import torch

from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.errors import RunError
from torchreptile.models.built_in import Params
from torchreptile.training.checkpoint import Checkpoint, load_checkpoint
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.setup import TrainingSetup

FAR = 10.0  # weights that have become so many times as long as they were have diverged


def diverged(setup: TrainingSetup, folder: RunFolder, step: int, what: str) -> RunError:
    """Return the error of a training that diverged, which names the setting to lower and the checkpoint that is left.

    Args:
        setup: the training.
        folder: its folder; the first process reads the last checkpoint, whose weights are finite.
        step: outer steps done.
        what: what is not finite, such as "the loss is nan".
    """
    last = None
    if setup.processes.rank == 0:
        with suppress(RunError):  # a missing or damaged file must not hide what happened
            last = load_checkpoint(folder.last, setup.device)
    left = f"; {folder.last} is still that of outer step {last.step}" if last else ""
    return RunError(
        f"{folder.path}: training diverged before outer step {step} ({what}); "
        f"start again with a smaller {_setting_to_lower(setup, last)}{left}"
    )


def _setting_to_lower(setup: TrainingSetup, last: Checkpoint | None) -> str:
    """Return the flag and value of the inner or the outer step size, of both where it cannot be known."""
    config = setup.config
    inner = f"--inner-lr than {config.inner.inner_lr:g}"
    outer = f"--outer-step-size than {config.outer.outer_step_size:g}"
    if not config.row.trains_by_steps:
        return outer
    if last is None or setup.processes.size > 1:  # the other processes do not compute along
        return f"{inner}, or {outer}"
    begun = setup.algorithm.begin(config.run.seed)
    if _inner_loops_diverge(setup, begun, last.generator):
        return inner
    if _length(last.state.params) > FAR * _length(begun.params):  # by outer steps: inner loops do not go so far
        return outer
    return inner if _inner_loops_diverge(setup, last.state, last.generator) else f"{outer}, or {inner}"


def _inner_loops_diverge(setup: TrainingSetup, state: MetaState, drawn: torch.Tensor) -> bool:
    """Return whether inner loops from finite weights give a loss or meta-gradient that is not finite.

    For Reptile the meta-gradient is the way that the inner loops go, which must not be many times as long as the
    weights either. That of a query loss may be.

    Args:
        setup: the training.
        state: the weights.
        drawn: state of the generator that draws the meta-batch.
    """
    generator = torch.Generator(setup.device)
    generator.set_state(drawn)
    with setup.algorithm.execution.claim():
        episodes = setup.sampler.sample(setup.config.outer.meta_batch, generator)
        found = setup.algorithm.meta_gradient(state, episodes, generator)
    far = math.inf if setup.config.row.learns_from_queries else FAR * max(_length(state.params), 1.0)
    length = _length(found.gradient)
    return not (math.isfinite(float(found.loss)) and math.isfinite(length) and length <= far)


def _length(tensors: Params) -> float:
    """Return the Euclidean norm of all tensors together; NaN or infinity if one of them holds it."""
    return math.hypot(*(float(tensor.double().norm()) for tensor in tensors.values()))
