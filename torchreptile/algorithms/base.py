"""What every algorithm must offer: a meta-gradient to train by, and adapted learners to be measured by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from torchreptile.algorithms.optim.inner_loop import InnerState, Params, shapes
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.config import Config
from torchreptile.core.distributed.process_group import Processes
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.conv4.network import for_images
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.task_chunks import TaskChunks
from torchreptile.models.losses import answers


@dataclass(frozen=True, eq=False)
class MetaState:
    """What meta-training learns, and what its optimisers remember.

    Attributes:
        params: phi, by name: the network's parameters, and whatever else an algorithm meta-learns.
        inner: the inner optimiser's state that carries on from task to task.
        outer: the outer optimiser's state.
        averages: what is gathered beside learning, such as running averages of BatchNorm's statistics, by name.
    """

    params: Params
    inner: InnerState
    outer: OuterState
    averages: Params = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """All of them, in a fixed order."""
        inner = [*self.inner.v.values(), self.inner.steps]
        return [*self.params.values(), *inner, *self.outer.tensors(), *self.averages.values()]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> MetaState:
        """The same with every tensor changed, such as moved or copied."""
        params = {name: change(p) for name, p in self.params.items()}
        v = {name: change(v) for name, v in self.inner.v.items()}
        inner = replace(self.inner, v=v, steps=change(self.inner.steps))
        averages = {name: change(average) for name, average in self.averages.items()}
        return replace(self, params=params, inner=inner, outer=self.outer.mapped(change), averages=averages)


@dataclass(frozen=True, eq=False)
class MetaGradient:
    """What one meta-batch of tasks says about phi.

    Attributes:
        gradient: shaped like the parameters; the outer update moves them against it.
        inner: the inner optimiser's state after these tasks.
        loss: () mean training loss inside the tasks, for people.
        averages: the state's after these tasks.
    """

    gradient: Params
    inner: InnerState
    loss: Tensor
    averages: Params = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What is said of every query, shaped like ``query_y``: labels (T, way * queries) or values (T, queries, targets).

    Attributes:
        transductive: all queries of an episode in one batch, sharing BatchNorm statistics; None where that is
            nothing else than each alone, and for functions, which are measured without such help.
        inductive: each query alone with the support set; no query can influence another.
        before: of functions, the values before any adaptation.
    """

    transductive: Tensor | None
    inductive: Tensor
    before: Tensor | None = None


@dataclass(frozen=True, eq=False)
class ExtraMetrics:
    """What an algorithm measures beside the accuracy of queries.

    Attributes:
        names: of the measures, for people and files, such as "presentation 2"; accuracies from 0 to 1.
        sampler: of the episodes they are taken on.
    """

    names: tuple[str, ...]
    sampler: Sampler


@dataclass(frozen=True, eq=False)
class ExecutionContext:
    """What an algorithm computes with; none of it changes what is learned but for rounding.

    Attributes:
        execution: how T copies of the network are computed.
        chunks: how many tasks at a time.
        processes: with whom the tasks are shared.
    """

    execution: Execution
    chunks: TaskChunks
    processes: Processes


class Adapted(ABC):
    """T learners, each adapted to the support set of its own task."""

    def transductive(self, query_x: Tensor) -> Tensor:
        """Transductive: (T, Q, C, H, W) -> logits (T, Q, way), all queries of a task in one batch; (T, Q, inputs) of
        points -> values (T, Q, targets).

        The same as :meth:`inductive` for learners that look at one image at a time.
        """
        return self.inductive(query_x)

    @abstractmethod
    def inductive(self, query_x: Tensor) -> Tensor:
        """Inductive: the same shapes; what is said of one query does not depend on the others."""


class Algorithm(ABC):
    """A few-shot learner.

    Attributes:
        config: all settings.
        blueprint: the network it learns with.
        execution: how it computes.
        chunks, processes: how many tasks at a time, and with whom they are shared.
        second_order: whether it differentiates the gradients of inner steps again.
        streams: whether its work is passes over memory, which the caches of a CPU hold for few tasks at a time.
        transduces: whether queries in one batch can be labelled otherwise than each alone.
        measures_before: whether predictions are made before adaptation too, as they are for functions.
    """

    second_order: ClassVar[bool] = False
    streams: ClassVar[bool] = False

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        self.config, self.blueprint, self.execution = config, blueprint, context.execution
        self.chunks, self.processes = context.chunks, context.processes
        self.measures_before = config.task.regression
        self.transduces = config.row.transductive and not config.task.regression

    @staticmethod
    def network(config: Config) -> Network:
        """The network that was published with it; one of your own may take its place."""
        return for_images

    @staticmethod
    def outputs(config: Config) -> int:
        """How many numbers its network makes of an image: one per class, unless it wants an embedding."""
        return config.task.way

    @classmethod
    def choose_execution(
        cls, config: Config, blueprint: Blueprint, device: torch.device, task_steps: float
    ) -> Execution:
        """How T tasks are computed; by default, how T copies of the network are.

        Args:
            config: ``execution`` is what was asked for.
            blueprint: the network.
            device: where it will run.
            task_steps: about how many inner steps there are to do, which decides whether compiling pays.

        Raises:
            ConfigError: the network cannot be executed as the settings ask.
        """
        run, module = config.run, blueprint.module
        return choose_execution(
            run.execution, module, blueprint.image_shape, device, task_steps, run.precision, cls.second_order
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what it meta-learns."""
        return shapes(self.begin(0).params)

    def fits(self, params: Params) -> bool:
        """Whether these can have been meta-learned by it: they have its shapes."""
        return shapes(params) == self.shapes

    def begin(self, seed: int) -> MetaState:
        """The state before training: same seed, same state."""
        return self.initial_state(self.blueprint.params(seed), seed)

    def initial_state(self, network_params: Params, seed: int = 0) -> MetaState:
        """The state before training, from the network's weights; ``seed`` draws what else is meta-learned."""
        params = network_params | self.extra_params(network_params, seed)
        outer = OuterState.fresh(params, self.config.outer.outer_optimizer)
        return MetaState(params, self.initial_inner(network_params), outer, self.initial_averages(network_params))

    def extra_params(self, network_params: Params, seed: int) -> Params:
        """What is meta-learned beside the network's weights, on their device: by default nothing."""
        return {}

    def initial_inner(self, network_params: Params) -> InnerState:
        """The inner optimiser's state before training: by default it carries none."""
        return InnerState.fresh(network_params, "sgd", self.config.training_batch)

    def initial_averages(self, network_params: Params) -> Params:
        """What is gathered beside learning, before training: by default nothing."""
        return {}

    def sampler(self, store: Store) -> Sampler:
        """The sampler of training tasks: ``train_shots`` support and ``train_queries`` query images per class."""
        task = self.config.task
        return sampler_of(store, task.way, task.images_per_class, queries=task.train_queries)

    @abstractmethod
    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """Learn from a meta-batch of training tasks; ``state`` is left as it was."""

    @abstractmethod
    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Adapt to T support sets; ``state`` is left as it was.

        Args:
            state: what was meta-learned.
            support_x: (T, S, C, H, W) images; classes may have different numbers of them. Or (T, S, inputs) points.
            support_y: (T, S) labels, or (T, S, targets) values.
            drawn: what :meth:`draw` gave for these tasks.
        """

    def settled(self, state: MetaState, adapted: Adapted) -> tuple[MetaState, Config]:
        """State and settings under which adapting to its support set again gives the first of ``adapted`` as it is.

        By default those it was adapted under: where adapting is more than to move weights, it is done again.
        """
        return state, self.config

    def unadapted(self, state: MetaState, support_x: Tensor) -> Adapted:
        """T learners as training left them, before they adapt to anything; of algorithms that fit functions."""
        raise NotImplementedError(f"{type(self).__name__} fits no functions")

    def draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """The random numbers that adapting to ``tasks`` support sets of ``images`` images takes, (T, ...).

        Drawn for all tasks at once, so that nothing depends on how many are computed at a time or where.
        """
        return torch.empty(tasks, 0, device=generator.device)

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """About how much memory one task takes; 0 for next to nothing."""
        return 0

    def predict(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Predictions:
        """Adapt to each support set and answer its queries both ways; ``state`` is left as it was."""
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
        with self.own_draws(generator):
            said = self.shared_out(answered, episodes.query_y.new_zeros(rows, *episodes.query_y.shape))
        return Predictions(
            said[-2] if self.transduces else None, said[-1], before=said[0] if self.measures_before else None
        )

    def further(self, store: Store) -> ExtraMetrics | None:
        """What to measure beside the accuracy of queries on classes of that store: by default nothing."""
        return None

    def measure_extra(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Tensor:
        """(names, T) the measures that :meth:`further` named, of each episode; ``state`` is left as it was."""
        return torch.empty(0, len(episodes), device=generator.device)

    def shared_out(self, work: Callable[[slice], Tensor], blank: Tensor) -> Tensor:
        """``work`` done for all tasks, piece by piece and by all processes together.

        Args:
            work: gives (rows, these tasks, ...).
            blank: (rows, T, ...) zeros, which are overwritten.
        """
        share = self.processes.share(blank.shape[1])
        if pieces := self.chunks.map(share, work):
            blank[:, share] = torch.cat(pieces, dim=1)
        self.processes.sum_([blank])
        return blank

    def fit_chunks(self, state: MetaState, episodes: Episodes) -> None:
        """Find out once how many tasks of this kind fit into memory."""
        if not self.chunks.limit:
            self.chunks.fit(self.task_bytes(state, episodes), self.streams)

    @contextmanager
    def own_draws(self, generator: torch.Generator) -> Iterator[None]:
        """What the network itself draws (Dropout) follows from ``generator`` too."""
        if not self.execution.draws:
            yield
            return
        device = generator.device
        seed = int(torch.randint(2**62, (), generator=generator, device=device))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield
