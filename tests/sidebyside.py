"""The package and the reference, set the same task with the same random draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from tests.easy import double_params, drawn_orders
from tests.reference import Batch, OmniglotNet, ReferenceLearner, annealed, cycling_batches, replacement_batches
from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.training.outer_step import updated


@dataclass
class SideBySide:
    """Where both stand after some outer steps, in float64."""

    algorithm: Algorithm
    state: MetaState
    reference: ReferenceLearner
    losses: list[tuple[float, float]]
    """The package's and the reference's training loss of every outer step."""


def reference_for(config: Config, state: MetaState) -> ReferenceLearner:
    """A reference learner with the package's phi and a fresh optimiser."""
    net = OmniglotNet(config.task.way).double()
    net.load_state_dict(state.params)
    inner = config.inner
    # Adam goes down the sum; dividing it by a number that is always the same makes no difference (but for eps).
    constant = config.training_batch if inner.inner_optimizer == "adam" else None
    per = 1 if inner.inner_loss == "sum" else constant
    return ReferenceLearner(net, inner.inner_optimizer, inner.inner_lr, inner.inner_state, per)


def run_both(config: Config, store: ImageStore, outer_steps: int = 3) -> SideBySide:
    """Some outer steps by the package and by the reference."""
    algorithm = build_algorithm(config, store.image_shape, torch.device("cpu"))
    state = algorithm.initial_state(double_params(config))
    reference = reference_for(config, state)
    sampler = algorithm.sampler(store)
    sampler.dtype = torch.float64
    outer, losses = config.outer, []
    ours, theirs = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for step in range(outer_steps):
        episodes = sampler.sample(outer.meta_batch, ours)
        gradients = algorithm.meta_gradient(state, episodes, ours)
        size = outer.step_size_at(step / outer_steps)
        state = updated(outer, state, gradients, size)

        episodes = sampler.sample(outer.meta_batch, theirs)
        tasks = training_batches(config, episodes, theirs)
        size = annealed(outer.outer_step_size, outer.outer_step_size_final, step, outer_steps)
        loss = reference.outer_step(tasks, size, last_step_only=config.method.algorithm == "foml")
        losses.append((float(gradients.loss), loss))
    return SideBySide(algorithm, state, reference, losses)


def training_batches(config: Config, episodes: Episodes, generator: torch.Generator) -> list[list[Batch]]:
    """Every task's mini-batches, cut by the reference; a separate tail is the last batch, whole."""
    inner, tail = config.inner, config.method.reserved_images
    steps = inner.inner_steps - 1 if tail else inner.inner_steps
    one_by_one = inner.inner_state == "carry"
    batches = cut(episodes, inner.inner_batch, steps, inner.replacement, generator, one_by_one)
    if tail:
        for task, own in enumerate(batches):
            own.append((episodes.query_x[task], episodes.query_y[task]))
    return batches


def cut(
    episodes: Episodes, batch: int, steps: int, replacement: bool, generator: torch.Generator, one_by_one: bool = False
) -> list[list[Batch]]:
    """The reference's stream of mini-batches over the package's shuffles of every support set.

    ``one_by_one``: the package draws for a task at a time, as the carry policy does.
    """
    tasks, images = episodes.support_y.shape
    passes = steps if replacement else math.ceil(steps * batch / images)
    if one_by_one:
        orders = [drawn_orders(1, passes, images, generator)[0] for _ in range(tasks)]
    else:
        orders = drawn_orders(tasks, passes, images, generator)
    stream = replacement_batches if replacement else cycling_batches
    result = []
    for x, y, order in zip(episodes.support_x, episodes.support_y, orders, strict=True):
        indices = list(stream(order, batch))[:steps]
        assert len(indices) == steps
        result.append([(x[chosen], y[chosen]) for chosen in indices])
    return result
