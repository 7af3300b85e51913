"""Heads for another number of classes than the weights were trained for."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from torchreptile.algorithms.base import Algorithm
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.training.weights import MetaWeights


def for_classes(
    trained: Config, way: int, steps: int | None = None, batch: int | None = None, inner_lr: float | None = None
) -> Config:
    """Return the settings to adapt weights to one support set of ``way`` classes.

    By default an inner batch holds as many images per class as in the weights' evaluation. More classes than in
    training get proportionally more inner steps, because a larger head starts farther from its optimum.

    Args:
        trained: settings of the training.
        way: number of classes.
        steps: inner steps, or None for the default.
        batch: images in an inner batch, or None for the default.
        inner_lr: inner learning rate, or None for that of the training.
    """
    evaluation, trained_way = trained.evaluation, trained.task.way
    return trained.replace(
        way=way,
        eval_steps=max(evaluation.eval_steps, -(-evaluation.eval_steps * way // trained_way))
        if steps is None
        else steps,
        eval_batch=-(-trained.adapting_batch * way // trained_way) if batch is None else batch,
        # Settings of training tasks have no effect here, but must not make the settings invalid.
        inner_batch=1,
        execution="auto",
        precision="fp32",
        task_chunk=0,
    ).with_inner_lr(inner_lr)


def with_outputs(weights: MetaWeights, algorithm: Algorithm) -> MetaWeights:
    """Return the weights with a head of as many outputs as ``algorithm`` has.

    Training shuffles the labels of every task, so no row of a head stands for a class; still the rows differ, and the
    inner steps use that. For fewer classes the first rows are taken, without loss. For more classes the added rows, and
    their second moments, are the mean of the trained ones; accuracy is then well below that of weights trained for as
    many classes. Algorithms without a head, such as Prototypical Networks, are unaffected.

    Raises:
        ConfigError: the shapes differ in more than the outputs of the head.
    """
    if algorithm.fits(weights.state.params):
        return weights
    shapes = algorithm.shapes
    trained, wanted = weights.config.task.way, algorithm.config.task.way

    def resized(name: str, tensor: Tensor) -> Tensor:
        """The tensor with as many rows as the network has."""
        if name not in shapes or tuple(tensor.shape) == shapes[name]:
            return tensor
        if tuple(tensor.shape) != (trained, *shapes[name][1:]) or shapes[name][0] != wanted:
            raise ConfigError(
                f"{weights.name}: {name} has the shape {tuple(tensor.shape)}, the network has {shapes[name]} there; "
                f"only a head may differ, by its {trained} outputs"
            )
        added = tensor.mean(0, keepdim=True).expand(max(0, wanted - trained), *tensor.shape[1:])
        return torch.cat([tensor[:wanted], added])

    state = weights.state
    params = {name: resized(name, p) for name, p in state.params.items()}
    inner = replace(state.inner, v={name: resized(name, v) for name, v in state.inner.v.items()})
    return replace(weights, state=replace(state, params=params, inner=inner))
