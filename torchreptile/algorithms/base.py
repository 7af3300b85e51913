"""The contract of every algorithm: a meta-gradient for training, and adapted learners for evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchreptile.algorithms.execution_context import ExecutionContext
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState, shapes
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.config import Config
from torchreptile.core.distributed.process_group import Processes
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.network import for_images
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.task_chunks import TaskChunks
from torchreptile.models.losses import answers


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for every query, shaped like ``query_y``: labels (T, way * queries) or values (T, queries, targets).

    Attributes:
        transductive: all queries of an episode in one batch, sharing BatchNorm statistics; None for functions and for
            algorithms where it would equal ``inductive``.
        inductive: each query alone with the support set, so that no query influences another.
        before: for functions, the values before adaptation; else None.
    """

    transductive: Tensor | None
    inductive: Tensor
    before: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ExtraMetrics:
    """Metrics that an algorithm reports in addition to the accuracy on queries.

    Attributes:
        names: as shown and stored, such as "presentation 2"; the metrics are accuracies from 0 to 1.
        sampler: draws the episodes they are measured on.
    """

    names: tuple[str, ...]
    sampler: Sampler


class Adapted(ABC):
    """T learners, each adapted to the support set of its own task.

    Both modes map images (T, Q, C, H, W) to logits (T, Q, way), or points (T, Q, inputs) to values (T, Q, targets).
    """

    def transductive(self, query_x: Tensor) -> Tensor:
        """Predict all queries of a task in one batch, in which they may influence each other.

        By default this is the inductive prediction, for learners that process one image at a time.

        Args:
            query_x: (T, Q, C, H, W) images, or (T, Q, inputs) points.

        Returns:
            Logits (T, Q, way), or values (T, Q, targets).
        """
        return self.inductive(query_x)

    @abstractmethod
    def inductive(self, query_x: Tensor) -> Tensor:
        """Predict each query alone, so that no query influences another.

        Args:
            query_x: (T, Q, C, H, W) images, or (T, Q, inputs) points.

        Returns:
            Logits (T, Q, way), or values (T, Q, targets).
        """


class Algorithm(ABC):
    """A few-shot learning algorithm.

    Attributes:
        config: all settings.
        blueprint: the network.
        context: how the tasks are computed: execution, chunks, processes.
        second_order: whether the gradients of inner steps are differentiated again.
        streams: whether the work is passes over memory, so that a CPU's caches suit few tasks at a time.
        draws_minibatches: whether :meth:`draw` draws mini-batches of the support set, as indices (T, steps, B).
        transduces: whether a query's prediction can depend on the other queries of its batch.
        measures_before: whether predictions are made before adaptation too, as for functions.
    """

    second_order: ClassVar[bool] = False
    streams: ClassVar[bool] = False
    draws_minibatches: ClassVar[bool] = False

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        self.config, self.blueprint, self.context = config, blueprint, context
        self.measures_before = config.task.regression
        self.transduces = config.row.transductive and not config.task.regression

    @property
    def execution(self) -> Execution:
        """How T copies of the network are computed."""
        return self.context.execution

    @property
    def chunks(self) -> TaskChunks:
        """How many tasks are computed at a time."""
        return self.context.chunks

    @property
    def processes(self) -> Processes:
        """The processes that share the tasks."""
        return self.context.processes

    @staticmethod
    def network(config: Config) -> Network:
        """Return the network published with the algorithm, used unless a custom one is given."""
        return for_images

    @staticmethod
    def outputs(config: Config) -> int:
        """Return the outputs of its network per image: one per class by default, or the size of an embedding."""
        return config.task.way

    @classmethod
    def choose_execution(
        cls, config: Config, blueprint: Blueprint, device: torch.device, task_steps: float
    ) -> Execution:
        """Choose how T tasks are computed; by default, how T copies of the network are.

        Args:
            config: all settings, of which ``execution`` is the requested one.
            blueprint: the network.
            device: where it will run.
            task_steps: about how many inner steps there are to do, which decides whether compiling pays off.

        Raises:
            ConfigError: the network does not support the requested execution.
        """
        run, module = config.run, blueprint.module
        return choose_execution(
            run.execution, module, blueprint.image_shape, device, task_steps, run.precision, cls.second_order
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the meta-learned parameters."""
        return shapes(self.begin(0).params)

    def fits(self, params: Params) -> bool:
        """Whether ``params`` have the names and shapes that this algorithm meta-learns."""
        return shapes(params) == self.shapes

    def begin(self, seed: int) -> MetaState:
        """Return the state before training: same seed, same state."""
        return self.initial_state(self.blueprint.params(seed), seed)

    def initial_state(self, network_params: Params, seed: int = 0) -> MetaState:
        """Return the state before training.

        Args:
            network_params: the network's weights by name.
            seed: draws the other meta-learned parameters.
        """
        params = network_params | self.extra_params(network_params, seed)
        outer = OuterState.fresh(params, self.config.outer.outer_optimizer)
        return MetaState(params, self.initial_inner(network_params), outer, self.initial_averages(network_params))

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """Return the parameters meta-learned in addition to the network's weights, on their device: by default none."""
        return {}

    def initial_inner(self, network_params: Params) -> InnerState:
        """Return the inner optimiser's state before training: by default plain SGD's, which is empty."""
        return InnerState.fresh(network_params, "sgd", self.config.training_batch)

    def initial_averages(self, network_params: Params) -> Params:
        """Return the statistics to gather, as they are before training: by default none."""
        return {}

    def sampler(self, store: Store) -> Sampler:
        """Return a sampler of training tasks with ``train_shots`` support and ``train_queries`` query images per class.

        Args:
            store: the meta-training classes, or functions.
        """
        task = self.config.task
        return sampler_of(store, task.way, task.images_per_class, queries=task.train_queries)

    @abstractmethod
    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """Return the meta-gradient of a meta-batch of training tasks.

        Args:
            state: the state before; not modified.
            episodes: T training tasks.
            generator: draws mini-batches and other random numbers.
        """

    @abstractmethod
    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Adapt to T support sets.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, C, H, W) images, or (T, S, inputs) points; classes may differ in their number of images.
            support_y: (T, S) labels, or (T, S, targets) values.
            drawn: (T, ...) random numbers from :meth:`draw` for these tasks.
        """

    def settled(self, state: MetaState, adapted: Adapted) -> tuple[MetaState, Config]:
        """Return state and settings that reproduce the first of the adapted learners from its support set.

        By default these are the ones it was adapted with, so that the adaptation is repeated. Algorithms whose
        adaptation only moves weights return the moved weights and settings without inner steps.

        Args:
            state: the state before adaptation; not modified.
            adapted: learners from :meth:`adapt`.
        """
        return state, self.config

    def unadapted(self, state: MetaState, support_x: Tensor) -> Adapted:
        """Return T learners that have not adapted, for algorithms that fit functions.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, inputs) points.

        Raises:
            NotImplementedError: the algorithm does not fit functions.
        """
        raise NotImplementedError(f"{type(self).__name__} does not fit functions")

    def draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """Draw the random numbers for adapting to T support sets, (T, ...): by default none.

        They are drawn for all tasks at once, so that results do not depend on chunks and processes.

        Args:
            tasks: T.
            images: in each support set.
            generator: draws the numbers.
        """
        return torch.empty(tasks, 0, device=generator.device)

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return about how many bytes of memory one of these tasks takes; 0 if negligible."""
        return 0

    def predict(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Predictions:
        """Adapt to each support set and predict its queries, transductive and inductive.

        Args:
            state: what was meta-learned; not modified.
            episodes: T tasks with support and query sets.
            generator: draws the random numbers of adaptation.
        """
        tasks, images = episodes.support_y.shape[:2]
        drawn = self.draw(tasks, images, generator)
        self.fit_chunks(state, episodes)

        @torch.no_grad()
        def answered(part: slice) -> Tensor:
            its = episodes[part]
            adapted = self.adapt(state, its.support_x, its.support_y, drawn[part])
            ways = [adapted.transductive, adapted.inductive] if self.transduces else [adapted.inductive]
            if self.measures_before:
                ways.insert(0, self.unadapted(state, its.support_x).inductive)
            return answers(torch.stack([way(its.query_x) for way in ways]), its.query_y)

        rows = 1 + self.transduces + self.measures_before
        with self.context.network_draws(generator):
            predicted = self.context.map_tasks(answered, episodes.query_y.new_zeros(rows, *episodes.query_y.shape))
        return Predictions(
            predicted[-2] if self.transduces else None,
            predicted[-1],
            before=predicted[0] if self.measures_before else None,
        )

    def extra_metrics(self, store: Store) -> ExtraMetrics | None:
        """Return the metrics to report on the classes of ``store`` in addition to accuracy: by default none."""
        return None

    def measure_extra(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Tensor:
        """Measure what :meth:`extra_metrics` names on each episode: (names, T).

        Args:
            state: what was meta-learned; not modified.
            episodes: T tasks from the sampler of :meth:`extra_metrics`.
            generator: draws the random numbers of adaptation.
        """
        return torch.empty(0, len(episodes), device=generator.device)

    def fit_chunks(self, state: MetaState, episodes: Episodes) -> None:
        """Determine once how many tasks like ``episodes`` fit into memory at a time."""
        if not self.chunks.limit:
            self.chunks.fit(self.task_bytes(state, episodes), self.streams)
