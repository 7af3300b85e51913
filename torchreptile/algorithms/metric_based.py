"""The frame of algorithms that embed images and label queries by the support set's embeddings.

The weights are common to all tasks, so T episodes are one batch of images to the convolutions; BatchNorm's statistics
are each episode's own. What those statistics are decides what ``together`` and ``alone`` mean:

- together (transductive): support set and queries of an episode in one batch, as in training.
- alone: running averages gathered in training, by which each image is embedded without a look at any other, as the
  published code evaluates. A network of one's own has no such averages: there each query is in one batch with the
  support set.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.algorithms.base import Adapted, ExecutionContext, MetaState
from torchreptile.algorithms.optim.inner_loop import Params
from torchreptile.algorithms.task_gradient import LossGradient
from torchreptile.core.config import Config
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.embedding import HIDDEN, Embedder, for_embedding, width
from torchreptile.models.execution.choose import shared_execution
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.task_chunks import saved_bytes
from torchreptile.models.losses import task_losses

MOMENTUM = 0.1  # of running averages, per outer step: PyTorch's default, as in the published code


class MetricBased(LossGradient):
    """Embeds, and leaves what is made of the embeddings to its kinds."""

    streams = True

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        super().__init__(blueprint, config, context)
        plain = Embedder(blueprint.module, config.run.precision)
        compiled = self.execution.name == "compiled"
        # Evaluation sees many shapes of batches once or twice: none of them repays compiling.
        self.embedder = plain
        self.training_embedder = Embedder(blueprint.module, config.run.precision, compiled) if compiled else plain
        self.width = width(blueprint.module, blueprint.image_shape)

    @staticmethod
    def network(config: Config) -> Network:
        """Four convolutional blocks."""
        return for_embedding

    @staticmethod
    def outputs(config: Config) -> int:
        """What a network of one's own is asked for."""
        return HIDDEN

    @classmethod
    def choose_execution(
        cls, config: Config, blueprint: Blueprint, device: torch.device, task_steps: float
    ) -> Execution:
        """One batch, whatever was asked for."""
        return shared_execution(config.run.execution, blueprint.module, device, task_steps)

    def initial_averages(self, network_params: Params) -> Params:
        """Mean 0 and variance 1."""
        return self.embedder.fresh_averages(network_params)

    def averages_after(self, averages: Params, measured: Params) -> Params:
        """A step of the running averages towards the mean of these tasks' statistics."""
        return {name: average.lerp(measured[name], MOMENTUM) for name, average in averages.items()}

    def sampler(self, store: Store) -> Sampler:
        """Training tasks may have a way of their own."""
        task = self.config.task
        return sampler_of(store, task.training_way, task.images_per_class, queries=task.train_queries)

    def remember(self, params: Params, support: Tensor, classes: Tensor, drawn: Tensor) -> Params:
        """What queries are compared with, by names that :meth:`label` knows: by default all of the support set.

        Args:
            params: what is meta-learned.
            support: (T, S, E) embeddings.
            classes: (T, S, way) 1 where an image is of a class, else 0; classes may have different numbers of images.
            drawn: what :meth:`draw` gave for these tasks.
        """
        return {"support": support, "classes": classes}

    @abstractmethod
    def label(self, params: Params, remembered: Params, query: Tensor) -> Tensor:
        """Label queries by their embeddings (T, Q, E), each without a look at the others: logits (T, Q, way)."""

    def label_by(self, params: Params, support: Tensor, y: Tensor, way: int, query: Tensor, drawn: Tensor) -> Tensor:
        """The same, from embeddings (T, S, E) and labels (T, S) of the support set."""
        return self.label(params, self.remember(params, support, members(y, way, support), drawn), query)

    def losses(self, params: Params, episodes: Episodes, drawn: Tensor) -> Tensor:
        """Of each task, (T,)."""
        return self.losses_and_averages(params, episodes, drawn)[0]

    def losses_and_averages(self, params: Params, episodes: Episodes, drawn: Tensor) -> tuple[Tensor, Params]:
        """Mean cross-entropy of each task's queries, (T,), embedded together with its support set."""
        batch = torch.cat([episodes.support_x, episodes.query_x], dim=1)
        embedded, statistics = self.training_embedder.by_batch(params, batch)
        images = episodes.support_y.shape[1]
        support, query = embedded[:, :images], embedded[:, images:]
        way = self.config.task.training_way
        logits = self.label_by(params, support, episodes.support_y, way, query, drawn)
        return task_losses(logits, episodes.query_y), statistics

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Nothing but remembering the support set, unless the embedding is to be fine-tuned."""
        weights = [(slice(None), state.params)]
        if steps := self.config.evaluation.finetune_steps:
            tasks = [slice(task, task + 1) for task in range(len(support_x))]
            weights = [
                (task, self.finetuned(state, support_x[task], support_y[task], drawn[task], steps)) for task in tasks
            ]
        return EmbeddedTasks(self, weights, state.averages, support_x, support_y, drawn)

    def finetuned(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor, steps: int) -> Params:
        """The parameters of one task, its embedding trained on by ``steps`` steps of SGD.

        The loss is that of the support images as queries of their own set: with one image per class too, it moves
        classes apart.
        """
        names = [name for name, _ in self.blueprint.module.named_parameters()]
        own = {name: state.params[name].detach().requires_grad_() for name in names}
        for _ in range(steps):
            with torch.enable_grad():
                embedded = self.embedded(own, state.averages, support_x)
                params = state.params | own
                logits = self.label_by(params, embedded, support_y, self.config.task.way, embedded, drawn)
                loss = task_losses(logits, support_y).sum()
            gradient = torch.autograd.grad(loss, list(own.values()))
            moved = torch._foreach_sub(list(own.values()), gradient, alpha=self.config.inner.inner_lr)
            own = {name: p.detach().requires_grad_() for name, p in zip(own, moved, strict=True)}
        return state.params | {name: p.detach() for name, p in own.items()}

    def settled(self, state: MetaState, adapted: Adapted) -> tuple[MetaState, Config]:
        """The embedding as it is now, and no fine-tuning."""
        assert isinstance(adapted, EmbeddedTasks)
        _, params = adapted.weights[0]
        return replace(state, params=params), self.config.replace(finetune_steps=0)

    def embedded(self, params: Params, averages: Params, x: Tensor) -> Tensor:
        """(T, B, C, H, W) -> (T, B, E), every image by itself where the network can."""
        if self.embedder.keeps_averages:
            return self.embedder.by_averages(params, averages, x)
        return self.embedder.by_batch(params, x)[0]

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Of a training step: activations both ways."""
        leaves = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        batch = torch.cat([episodes.support_x, episodes.query_x], dim=1)[:1]

        def embed() -> Tensor:
            with torch.enable_grad():
                return self.embedder.by_batch(leaves, batch)[0]

        with torch.random.fork_rng([batch.device] if batch.device.type == "cuda" else []):  # nobody must notice
            return 2 * saved_bytes(embed)


class EmbeddedTasks(Adapted):
    """T support sets, and the weights to embed them by: common ones, or each task's own."""

    def __init__(
        self,
        algorithm: MetricBased,
        weights: Sequence[tuple[slice, Params]],
        averages: Params,
        support_x: Tensor,
        support_y: Tensor,
        drawn: Tensor,
    ) -> None:
        """``weights``: parameters, each with the tasks that they are for."""
        self.weights = weights
        self._algorithm, self._averages = algorithm, averages
        self._support_x, self._support_y, self._drawn = support_x, support_y, drawn
        self._way = algorithm.config.task.way

    @torch.no_grad()
    def transductive(self, query_x: Tensor) -> Tensor:
        """All queries in one batch with the support set."""
        return torch.cat([self._in_one_batch(tasks, params, query_x[tasks]) for tasks, params in self.weights])

    @torch.no_grad()
    def inductive(self, query_x: Tensor) -> Tensor:
        """By running averages; without them, each query in a batch with the support set."""
        if self._algorithm.embedder.keeps_averages:
            embedder, averages = self._algorithm.embedder, self._averages
            return torch.cat(
                [
                    self._algorithm.label(params, its, embedder.by_averages(params, averages, query_x[tasks]))
                    for (tasks, params), its in zip(self.weights, self._remembered, strict=True)
                ]
            )
        return torch.cat([self.transductive(query_x[:, query : query + 1]) for query in range(query_x.shape[1])], dim=1)

    def _in_one_batch(self, tasks: slice, params: Params, query_x: Tensor) -> Tensor:
        y, drawn = self._support_y[tasks], self._drawn[tasks]
        embedded, _ = self._algorithm.embedder.by_batch(params, torch.cat([self._support_x[tasks], query_x], dim=1))
        support, query = embedded[:, : y.shape[1]], embedded[:, y.shape[1] :]
        return self._algorithm.label_by(params, support, y, self._way, query, drawn)

    @cached_property
    def _remembered(self) -> list[Params]:
        """Of each piece of the tasks, what its queries are compared with, embedded by averages."""
        kept = []
        for tasks, params in self.weights:
            support = self._algorithm.embedder.by_averages(params, self._averages, self._support_x[tasks])
            classes = members(self._support_y[tasks], self._way, support)
            kept.append(self._algorithm.remember(params, support, classes, self._drawn[tasks]))
        return kept


def members(y: Tensor, way: int, like: Tensor) -> Tensor:
    """(T, S) labels -> (T, S, way), 1 where an image is of a class and 0 elsewhere, in the dtype of ``like``."""
    return F.one_hot(y, way).to(like.dtype)
