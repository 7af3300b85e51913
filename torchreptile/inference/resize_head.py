"""Weights for another number of classes than they were trained for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.training.weights import MetaWeights


def for_classes(own: Config, way: int, steps: int | None = None, batch: int | None = None) -> Config:
    """Settings to adapt to one support set of ``way`` classes with weights that were trained under ``own``.

    Every class is in a mini-batch as often as in the weights' own evaluation. A head for more classes begins further
    from where it must go: with as many more steps as it has more classes it does much better.

    Args:
        own: settings of the training.
        way: how many classes.
        steps, batch: inner steps and images in an inner mini-batch; by default as above.
    """
    evaluation, trained = own.evaluation, own.task.way
    return own.replace(
        way=way,
        eval_steps=max(evaluation.eval_steps, -(-evaluation.eval_steps * way // trained)) if steps is None else steps,
        eval_batch=-(-own.adapting_batch * way // trained) if batch is None else batch,
        # How training tasks were made says nothing here, and must not stand in the way.
        inner_batch=1,
        execution="auto",
        precision="fp32",
        task_chunk=0,
    )


def with_outputs(learned: MetaWeights, algorithm: Algorithm) -> MetaWeights:
    """``learned``, its head brought to the number of outputs that ``algorithm`` has.

    Training shuffles labels in every task, so a row of a head means no class, but the rows differ, and the inner steps
    make use of it. For fewer classes the first rows are taken, and lose nothing. For more classes the further rows are
    the mean of those there are, and so is their second moment: that is a makeshift, well below weights trained for as
    many classes. Algorithms without a head, such as Prototypical Networks, need neither.

    Raises:
        ConfigError: more than a head's number of outputs differs.
    """
    if algorithm.fits(learned.state.params):
        return learned
    shapes = algorithm.shapes
    trained, wanted = learned.config.task.way, algorithm.config.task.way

    def resized(name: str, tensor: Tensor) -> Tensor:
        if name not in shapes or tuple(tensor.shape) == shapes[name]:
            return tensor
        if tuple(tensor.shape) != (trained, *shapes[name][1:]) or shapes[name][0] != wanted:
            raise ConfigError(
                f"{learned.name}: {name} has the shape {tuple(tensor.shape)}, the network has {shapes[name]} there; "
                f"only a head may differ, by its {trained} outputs"
            )
        further = tensor.mean(0, keepdim=True).expand(max(0, wanted - trained), *tensor.shape[1:])
        return torch.cat([tensor[:wanted], further])

    state = learned.state
    params = {name: resized(name, p) for name, p in state.params.items()}
    inner = replace(state.inner, v={name: resized(name, v) for name, v in state.inner.v.items()})
    return replace(learned, state=replace(state, params=params, inner=inner))
