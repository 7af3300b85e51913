"""What every algorithm must offer: a meta-gradient to train by, and predictions to be measured by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchreptile.chunks import TaskChunks, saved_bytes
from torchreptile.config import Config
from torchreptile.data.store import ImageStore
from torchreptile.episodes import Episodes, EpisodeSampler
from torchreptile.execution import Execution
from torchreptile.inner import InnerLoop, InnerState, Params, shapes
from torchreptile.minibatches import minibatches
from torchreptile.processes import Processes


@dataclass(frozen=True, eq=False)
class MetaState:
    """What meta-training learns.

    Attributes:
        params: phi, the initialisation: the network's parameters by name.
        inner: the inner optimiser's state that carries on from task to task.
    """

    params: Params
    inner: InnerState


@dataclass(frozen=True, eq=False)
class MetaGradient:
    """What one meta-batch of tasks says about phi.

    Attributes:
        gradient: shaped like the parameters; the outer update is phi <- phi - step size * gradient.
        inner: the inner optimiser's state after these tasks.
        loss: () mean training loss inside the tasks, for people.
    """

    gradient: Params
    inner: InnerState
    loss: Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted labels of every query image, (T, way * queries) int64 each.

    Attributes:
        transductive: all queries of an episode in one batch, sharing BatchNorm statistics.
        non_transductive: each query alone with the support set; no query can influence another.
    """

    transductive: Tensor
    non_transductive: Tensor


@dataclass(frozen=True, eq=False)
class Machinery:
    """What an algorithm computes with; none of it changes what is learned but for rounding.

    Attributes:
        execution: how T copies of the network are computed.
        chunks: how many tasks at a time.
        processes: with whom the tasks are shared.
    """

    execution: Execution
    chunks: TaskChunks
    processes: Processes


class Algorithm(ABC):
    """A few-shot learner.

    Attributes:
        execution: how it computes.
        shapes: names and shapes of the parameters it learns.
    """

    execution: Execution
    shapes: dict[str, tuple[int, ...]]

    @abstractmethod
    def sampler(self, store: ImageStore) -> EpisodeSampler:
        """The sampler of this algorithm's training tasks."""

    @abstractmethod
    def initial_state(self, params: Params) -> MetaState:
        """The state before training."""

    @abstractmethod
    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        """Learn from a meta-batch of training tasks; ``state`` is left as it was."""

    @abstractmethod
    def predict(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Predictions:
        """Adapt to each support set and label its queries; ``state`` is left as it was."""


class GradientBased(Algorithm):
    """Algorithms that adapt by training the network itself on the support set."""

    def __init__(self, module: nn.Module, config: Config, machinery: Machinery) -> None:
        """``module`` gives the network's form alone: its own weights are never used."""
        self.config, self.execution, self._module = config, machinery.execution, module
        self.shapes = shapes(dict(module.named_parameters()))
        self.chunks, self.processes = machinery.chunks, machinery.processes
        self.inner_loop = InnerLoop(config.inner, machinery.execution, config.run.precision)

    def initial_state(self, params: Params) -> MetaState:
        """Phi as given, the inner optimiser fresh."""
        return MetaState(params, InnerState.fresh(params, self.config.inner.inner_optimizer))

    def predict(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Predictions:
        """Adapt T copies of phi by ``eval_steps`` inner steps, then label the queries both ways."""
        settings = self.config.evaluation
        tasks, images = episodes.support_y.shape
        # A batch larger than the support set cannot be drawn without repetition: --replacement takes all of it.
        batch = min(settings.eval_batch, images) if self.config.inner.replacement else settings.eval_batch
        drawn = minibatches(tasks, images, batch, settings.eval_steps, self.config.inner.replacement, generator)
        start = self._start(state)
        self.fit_chunks(start.params, episodes, batch)

        def label(part: slice) -> Tensor:
            params, inner = self.inner_loop.stacked(start.params, start.inner, part.stop - part.start)
            self.inner_loop.run(params, inner, take_batches(episodes[part], drawn[part]))
            return self._labels(params, episodes[part])

        share = self.processes.share(tasks)
        labels = torch.zeros(2, *episodes.query_y.shape, dtype=torch.int64, device=episodes.query_y.device)
        with self.own_draws(generator):
            if pieces := self.chunks.map(share, label):
                labels[:, share] = torch.cat(pieces, dim=1)
        self.processes.sum_([labels])
        return Predictions(transductive=labels[0], non_transductive=labels[1])

    def fit_chunks(self, params: Params, episodes: Episodes, batch: int) -> None:
        """Find out once how many tasks of this kind fit into memory."""
        if self.chunks.limit:
            return
        if self.inner_loop.execution.one_by_one:
            self.chunks.limit = 1
            return
        leaves, _ = self.inner_loop.stacked(params, InnerState.fresh(params, "sgd"), 1)
        leaves = {name: p.requires_grad_() for name, p in leaves.items()}
        x = episodes.support_x[:1, :1].expand(1, batch, *episodes.support_x.shape[2:])
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):  # it may draw; nobody must notice
            activations = saved_bytes(lambda: self.inner_loop.forward(leaves, x))
        weights = sum(p.nbytes for p in leaves.values())
        # The backward pass holds about as much again; weights come with a second moment, a gradient, temporaries.
        self.chunks.fit(2 * activations + 5 * weights)

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

    @torch.no_grad()
    def _labels(self, params: Params, episodes: Episodes) -> Tensor:
        """(2, T, way * queries) predicted labels: transductive, and not."""
        with _labelling(self._module):
            together = self.inner_loop.forward(params, episodes.query_x).argmax(-1)
            alone = []
            for query in episodes.query_x.unbind(1):
                batch = torch.cat([episodes.support_x, query.unsqueeze(1)], dim=1)
                alone.append(self.inner_loop.forward(params, batch)[:, -1].argmax(-1))
        return torch.stack([together, torch.stack(alone, dim=1)])

    def _start(self, state: MetaState) -> MetaState:
        """What a task begins with: under ``reset`` the optimiser forgets what it gathered before."""
        if self.config.inner.inner_state == "reset":
            return self.initial_state(state.params)
        return state


@contextmanager
def _labelling(module: nn.Module) -> Iterator[None]:
    """No Dropout; BatchNorm goes by the batch all the same."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a transformer's shortcut in eval mode, which vmap cannot batch
    module.eval()
    try:
        yield
    finally:
        module.train()
        torch.backends.mha.set_fastpath_enabled(fast_path)


def take_batches(episodes: Episodes, drawn: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cut mini-batches out of support sets.

    Args:
        episodes: T tasks.
        drawn: (T, steps, B) indices from :func:`minibatches`.

    Yields:
        One (T, B, C, H, W), (T, B) pair per inner step.
    """
    x, y = episodes.support_x, episodes.support_y
    tasks = torch.arange(len(x), device=x.device)[:, None]
    for step in drawn.unbind(1):
        yield x[tasks, step], y[tasks, step]
