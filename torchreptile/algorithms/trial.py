"""A trial of training with a custom network: what training will run, run once, before a run folder is made."""

from __future__ import annotations

from dataclasses import replace

import torch

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.execution_context import ExecutionContext
from torchreptile.core.distributed.process_group import ALONE
from torchreptile.core.errors import ConfigError, TorchReptileError
from torchreptile.core.random_state import seeded
from torchreptile.core.user_code import described
from torchreptile.data.samplers import Sampler
from torchreptile.models.execution.task_chunks import TaskChunks

STEPS = 2  # inner steps of the trial, if training has more: the second starts from changed weights


def try_training(algorithm: Algorithm, sampler: Sampler, evaluated: Sampler, name: str) -> None:
    """Compute a meta-gradient and a prediction of one task, or two where tasks are batched, and forget them.

    Batches, execution, backward pass and order of differentiation are those of training; only a compiled execution is
    tried without the compiler. The random state and ``algorithm`` are unchanged.

    Args:
        algorithm: as built for training.
        sampler: of its training tasks.
        evaluated: of the tasks of its measurements.
        name: of the network, for messages.

    Raises:
        ConfigError: the network fails.
    """
    execution = replace(algorithm.execution, compiled=False)
    tasks = 1 if execution.one_by_one else 2
    config = algorithm.config
    few = config.replace(
        eval_steps=min(config.evaluation.eval_steps, 1), finetune_steps=min(config.evaluation.finetune_steps, 1)
    )
    if config.inner.inner_steps > STEPS:
        few = few.replace(inner_steps=STEPS)
    copy = type(algorithm)(
        algorithm.blueprint, few, ExecutionContext(execution, TaskChunks(tasks, device_of(sampler)), ALONE)
    )
    generator = torch.Generator(device_of(sampler)).manual_seed(0)
    doing = "training"
    try:
        with seeded(0, device_of(sampler)), execution.claim():
            state = copy.begin(0)
            copy.meta_gradient(state, sampler.sample(tasks, generator), generator)
            doing = "predictions"
            copy.predict(state, evaluated.sample(tasks, generator), generator)
    except TorchReptileError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise ConfigError(f"network {name} fails in {doing} ({described(error)})") from error


def device_of(sampler: Sampler) -> torch.device:
    """Return the device of a sampler's data."""
    return sampler.store.device
