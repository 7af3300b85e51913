"""The base of algorithms that embed images and label queries by the embeddings of the support set.

The weights are common to all tasks, so the convolutions see T episodes as one batch of images, while BatchNorm's
statistics are those of each episode. The statistics decide what the two modes of prediction mean:

- transductive: support set and queries of an episode form one batch, as in training.
- inductive: running averages gathered in training, with which each image is embedded independently of all others, as in
  the published evaluations. A custom network has no such averages: there each query forms a batch with the support set,
  unless its embedding of an image is independent of the others of a batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.algorithms.base import Adapted
from torchreptile.algorithms.execution_context import ExecutionContext
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.task_gradient import LossGradient
from torchreptile.core.config import Config
from torchreptile.core.random_state import RandomState
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.built_in import Params
from torchreptile.models.embedding import HIDDEN, Embedder, for_embedding, width
from torchreptile.models.execution.choose import shared_execution
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.task_chunks import saved_bytes
from torchreptile.models.losses import task_losses
from torchreptile.models.module_call import predicting

MOMENTUM = 0.1  # of the running averages, per outer step: PyTorch's default, as in the published code


class MetricBased(LossGradient):
    """Embeds images; subclasses label the queries' embeddings by those of the support set.

    logits = label(remember(f(support), classes), f(query)),    loss = mean cross-entropy of the queries
    """

    streams = True

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        super().__init__(blueprint, config, context)
        plain = Embedder(blueprint.module, config.run.precision, single=context.execution.single)
        # Evaluation sees many batch shapes once or twice each, so compiling does not pay off there.
        self.embedder = plain
        fuses = self.execution.fuses_blocks
        self.training_embedder = Embedder(blueprint.module, config.run.precision, compiled=True) if fuses else plain
        self.width = width(blueprint.module, blueprint.image_shape)

    @staticmethod
    def network(config: Config) -> Network:
        """Return the published embedding: four convolutional blocks."""
        return for_embedding

    @staticmethod
    def outputs(config: Config) -> int:
        """Return the size of embedding that a custom network is asked for."""
        return HIDDEN

    @classmethod
    def choose_execution(
        cls, config: Config, blueprint: Blueprint, device: torch.device, task_steps: float
    ) -> Execution:
        """Return an execution in which all tasks form one batch, whichever was requested."""
        return shared_execution(config.run.execution, blueprint.module, blueprint.image_shape, device, task_steps)

    def initial_averages(self, network_params: Params) -> Params:
        """Return BatchNorm's running averages before training: mean 0 and variance 1."""
        return self.embedder.fresh_averages(network_params)

    def averages_after(self, averages: Params, measured: Params) -> Params:
        """Return the running averages, moved towards the mean statistics ``measured`` of a meta-batch."""
        return {name: average.lerp(measured[name], MOMENTUM) for name, average in averages.items()}

    def sampler(self, store: Store) -> Sampler:
        """Return a sampler of training tasks, whose way may differ from that of evaluation."""
        task = self.config.task
        return sampler_of(store, task.training_way, task.images_per_class, queries=task.train_queries)

    def remember(self, params: Params, support: Tensor, classes: Tensor, drawn: Tensor) -> Params:
        """Return what queries are compared with, by the names that :meth:`label` uses: by default the support set.

        Args:
            params: what is meta-learned, by name.
            support: (T, S, E) embeddings.
            classes: (T, S, way) 1 where an image is of a class, else 0; classes may differ in their number of images.
            drawn: (T, ...) random numbers from :meth:`draw` for these tasks.
        """
        return {"support": support, "classes": classes}

    @abstractmethod
    def label(self, params: Params, remembered: Params, query: Tensor) -> Tensor:
        """Return logits (T, Q, way) of queries, each independent of the others.

        Args:
            params: what is meta-learned, by name.
            remembered: what :meth:`remember` returned for these tasks.
            query: (T, Q, E) embeddings.
        """

    def label_by(self, params: Params, support: Tensor, y: Tensor, way: int, query: Tensor, drawn: Tensor) -> Tensor:
        """Return logits (T, Q, way) of queries from the embeddings and labels of their support sets.

        Args:
            params: what is meta-learned, by name.
            support: (T, S, E) embeddings.
            y: (T, S) labels.
            way: classes of a task.
            query: (T, Q, E) embeddings.
            drawn: (T, ...) random numbers from :meth:`draw` for these tasks.
        """
        return self.label(params, self.remember(params, support, members(y, way, support), drawn), query)

    def losses(self, params: Params, episodes: Episodes, drawn: Tensor) -> Tensor:
        """Return the mean cross-entropy of each task's queries, (T,)."""
        return self.losses_and_averages(params, episodes, drawn)[0]

    def losses_and_averages(self, params: Params, episodes: Episodes, drawn: Tensor) -> tuple[Tensor, Params]:
        """Return the mean cross-entropy of each task's queries (T,), embedded with its support set, and statistics.

        Args:
            params: what is meta-learned, by name; leaves of the graph.
            episodes: T training tasks.
            drawn: (T, ...) random numbers from :meth:`training_draw` for these tasks.
        """
        batch = torch.cat([episodes.support_x, episodes.query_x], dim=1)
        embedded, statistics = self.training_embedder.by_batch(params, batch)
        images = episodes.support_y.shape[1]
        support, query = embedded[:, :images], embedded[:, images:]
        way = self.config.task.training_way
        logits = self.label_by(params, support, episodes.support_y, way, query, drawn)
        return task_losses(logits, episodes.query_y), statistics

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Store the support sets, after fine-tuning the embedding if ``finetune_steps`` is set.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, C, H, W) images.
            support_y: (T, S) labels.
            drawn: (T, ...) random numbers from :meth:`draw` for these tasks.
        """
        weights = [(slice(None), state.params)]
        if steps := self.config.evaluation.finetune_steps:
            tasks = [slice(task, task + 1) for task in range(len(support_x))]
            weights = [
                (task, self.finetuned(state, support_x[task], support_y[task], drawn[task], steps)) for task in tasks
            ]
        return EmbeddedTasks(self, weights, state.averages, support_x, support_y, drawn)

    def finetuned(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor, steps: int) -> Params:
        """Return the parameters of one task after ``steps`` steps of SGD on its embedding.

        The loss is that of the support images as queries of their own support set, which separates the classes even
        with one image per class.

        Args:
            state: what was meta-learned; not modified.
            support_x: (1, S, C, H, W) images.
            support_y: (1, S) labels.
            drawn: (1, ...) random numbers from :meth:`draw` for this task.
            steps: steps of SGD.
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
        """Return the fine-tuned embedding of the first adapted learner, and settings without fine-tuning."""
        assert isinstance(adapted, EmbeddedTasks)
        _, params = adapted.weights[0]
        return replace(state, params=params), self.config.replace(finetune_steps=0)

    @property
    def embeds_alone(self) -> bool:
        """Whether :meth:`embedded` embeds each image independently of the others."""
        return self.embedder.keeps_averages or self.execution.independent_outputs

    def predicting(self) -> AbstractContextManager[None]:
        """Return the context in which the network embeds images to be labelled: without Dropout."""
        return predicting(self.blueprint.module, self.execution.draws_predicting)

    def embedded(self, params: Params, averages: Params, x: Tensor) -> Tensor:
        """Return embeddings (T, B, E) of images (T, B, C, H, W), with running averages if the network has them."""
        if self.embedder.keeps_averages:
            return self.embedder.by_averages(params, averages, x)
        return self.embedder.by_batch(params, x)[0]

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return the bytes of a training step of one task: its activations, and as many for the backward pass."""
        leaves = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        batch = torch.cat([episodes.support_x, episodes.query_x], dim=1)[:1]

        def embed() -> Tensor:
            with torch.enable_grad():
                return self.embedder.by_batch(leaves, batch)[0]

        with RandomState.now(batch.device).restored(batch.device):  # Dropout draws random numbers
            return 2 * saved_bytes(embed)


class EmbeddedTasks(Adapted):
    """T support sets, and the weights to embed them with: common to all tasks, or fine-tuned for each."""

    def __init__(
        self,
        algorithm: MetricBased,
        weights: Sequence[tuple[slice, Params]],
        averages: Params,
        support_x: Tensor,
        support_y: Tensor,
        drawn: Tensor,
    ) -> None:
        """Predict by comparing queries with the support sets.

        Args:
            algorithm: embeds and labels.
            weights: parameters by name, each with the slice of tasks they belong to.
            averages: BatchNorm's running averages by name.
            support_x: (T, S, C, H, W) images.
            support_y: (T, S) labels.
            drawn: (T, ...) random numbers from the algorithm's ``draw``.
        """
        self.weights = weights
        self._algorithm, self._averages = algorithm, averages
        self._support_x, self._support_y, self._drawn = support_x, support_y, drawn
        self._way = algorithm.config.task.way

    @torch.no_grad()
    def transductive(self, query_x: Tensor) -> Tensor:
        """Predict all queries in one batch with the support set: (T, Q, C, H, W) -> logits (T, Q, way)."""
        with self._algorithm.predicting():
            return torch.cat([self._in_one_batch(tasks, params, query_x[tasks]) for tasks, params in self.weights])

    @torch.no_grad()
    def inductive(self, query_x: Tensor) -> Tensor:
        """Predict each query alone, or in a batch with the support set where images are not embedded independently."""
        if self._algorithm.embeds_alone:
            with self._algorithm.predicting():
                return torch.cat(
                    [
                        self._algorithm.label(
                            params, its, self._algorithm.embedded(params, self._averages, query_x[tasks])
                        )
                        for (tasks, params), its in zip(self.weights, self._remembered, strict=True)
                    ]
                )
        return torch.cat([self.transductive(query_x[:, query : query + 1]) for query in range(query_x.shape[1])], dim=1)

    def _in_one_batch(self, tasks: slice, params: Params, query_x: Tensor) -> Tensor:
        """Return the logits of queries embedded in one batch with the support sets of ``tasks``."""
        y, drawn = self._support_y[tasks], self._drawn[tasks]
        embedded, _ = self._algorithm.embedder.by_batch(params, torch.cat([self._support_x[tasks], query_x], dim=1))
        support, query = embedded[:, : y.shape[1]], embedded[:, y.shape[1] :]
        return self._algorithm.label_by(params, support, y, self._way, query, drawn)

    @cached_property
    def _remembered(self) -> list[Params]:
        """For each slice of tasks, what its queries are compared with, embedded independently of them."""
        remembered = []
        for tasks, params in self.weights:
            support = self._algorithm.embedded(params, self._averages, self._support_x[tasks])
            classes = members(self._support_y[tasks], self._way, support)
            remembered.append(self._algorithm.remember(params, support, classes, self._drawn[tasks]))
        return remembered


def members(y: Tensor, way: int, like: Tensor) -> Tensor:
    """Return (T, S, way) with 1 where an image is of a class, else 0.

    Args:
        y: (T, S) labels.
        way: classes of a task.
        like: a tensor with the dtype to use.
    """
    return F.one_hot(y, way).to(like.dtype)
