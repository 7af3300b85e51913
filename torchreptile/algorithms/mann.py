"""MANN: a network with an external memory reads an episode image by image, and nothing else is adapted.

With image t it is told the label of image t - 1, so it must keep what it saw until the label comes, and find it again
when the class does. Santoro et al. 2016, arXiv 1605.06065. It is trained and measured on episodes of ``train_shots``
images per class in random order; in the common protocol it is shown the support set, and then each query by itself.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.algorithms.base import Adapted, ExecutionContext, ExtraMetrics, MetaState
from torchreptile.algorithms.optim.inner_loop import Params
from torchreptile.algorithms.rows.mann import MANNSettings
from torchreptile.algorithms.task_gradient import LossGradient
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.data.augmentation import DRAWS, jittered
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.task_chunks import saved_bytes
from torchreptile.models.losses import task_losses
from torchreptile.models.mann import MANNNetwork, MemoryState

REPORTED = (1, 2, 3, 4, 5, 10)  # presentations of a class in the paper's table 1


@final
class MANN(LossGradient):
    """Trained by the cross-entropy of every image of an episode, the first ones included."""

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        super().__init__(blueprint, config, context)
        if not isinstance(blueprint.module, MANNNetwork):
            kind = type(blueprint.module).__name__
            raise ConfigError(f"mann is a network of its own, with its memory; it cannot run {kind}")
        if config.run.precision == "bf16":
            raise ConfigError("precision is bf16, but mann steps through episodes in fp32 or tf32")
        self.memory_network = blueprint.module

    @staticmethod
    def network(config: Config) -> Network:
        """Controller and memory, as large as the settings say."""
        own = config.own(MANNSettings)
        return partial(
            MANNNetwork,
            units=own.mann_units,
            slots=own.mann_slots,
            width=own.mann_width,
            heads=own.mann_heads,
            decay=own.mann_decay,
        )

    @classmethod
    def choose_execution(
        cls, config: Config, blueprint: Blueprint, device: torch.device, task_steps: float
    ) -> Execution:
        """One set of weights steps through all episodes side by side, so there is nothing to choose."""
        execution = choose_execution("loop", blueprint.module, blueprint.image_shape, device)
        return replace(execution, name="sequence", reason="one network reads all episodes side by side")

    def sampler(self, store: Store) -> Sampler:
        """Training episodes are ``train_shots`` images per class, all of them labelled one step late."""
        return sampler_of(store, self.config.task.way, self.config.task.images_per_class, queries=0)

    def training_draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """(T, S, 1) of which the order of an episode follows, or (T, S, 4) where images are moved and turned too."""
        numbers = 1 + DRAWS if self.config.own(MANNSettings).mann_jitter else 1
        return torch.rand(tasks, images, numbers, generator=generator, device=generator.device)

    def losses(self, params: Params, episodes: Episodes, drawn: Tensor) -> Tensor:
        """Mean cross-entropy over the images of each episode."""
        if amount := self.config.own(MANNSettings).mann_jitter:
            episodes = replace(episodes, support_x=jittered(episodes.support_x, drawn[..., 1:], amount))
        logits, labels = self.read_through(params, episodes, drawn[..., 0].argsort(1))
        return task_losses(logits, labels)

    def read_through(self, params: Params, episodes: Episodes, order: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (T, S, way) for the images of the support set in that order, and their labels (T, S)."""
        x, labels = in_order(episodes.support_x, episodes.support_y, order)
        start = self.memory_network.fresh(x, len(x))
        logits, _ = self.memory_network.present(params, x, one_step_late(labels, self.config.task.way, x.dtype), start)
        return logits, labels

    def draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """(T, S) a random order for each support set."""
        return torch.rand(tasks, images, generator=generator, device=generator.device).argsort(1)

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Show the support set; the last label is still to be told, with the query."""
        x, labels = in_order(support_x, support_y, drawn)
        before = one_step_late(labels, self.config.task.way, x.dtype)
        start = self.memory_network.fresh(x, len(x))
        _, after = self.memory_network.present(state.params, x, before, start)
        last = F.one_hot(labels[:, -1], self.config.task.way).to(x.dtype)
        return Remembering(self.memory_network, state.params, after, last)

    def further(self, store: Store) -> ExtraMetrics | None:
        """Accuracy by presentation: of the 1st, 2nd, ... image of a class, in episodes of 10 as in the paper's table 1,
        or of as many as the smallest class has."""
        assert isinstance(store, ImageStore)  # it fits no functions
        shown = min(REPORTED[-1], int(store.class_sizes.min()))
        names = tuple(f"presentation {number}" for number in REPORTED if number <= shown)
        return ExtraMetrics(names, sampler_of(store, self.config.task.way, shown, queries=0))

    def measure_extra(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Tensor:
        """(presentations, T) share of the classes whose image was labelled right at that presentation."""
        tasks, images = episodes.support_y.shape
        order, shown = self.draw(tasks, images, generator), images // self.config.task.way
        reported = [number for number in REPORTED if number <= shown]
        self.fit_chunks(state, episodes)

        @torch.no_grad()
        def by_presentation(part: slice) -> Tensor:
            logits, labels = self.read_through(state.params, episodes[part], order[part])
            right, turn = (logits.argmax(2) == labels), presentations(labels, self.config.task.way)
            return torch.stack([(right & (turn == number)).sum(1) / self.config.task.way for number in reported])

        blank = torch.zeros(len(reported), len(episodes), device=order.device)
        return self.shared_out(by_presentation, blank)

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """What one step of one episode keeps for the backward pass, times the steps."""
        leaves = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        one, network = episodes.support_x[:1, :1], self.memory_network
        start = network.fresh(one, 1)

        def kept(steps: int) -> int:
            x, before = one.expand(1, steps, *one.shape[2:]), one.new_zeros(1, steps, network.way)
            return saved_bytes(lambda: network.present(leaves, x, before, start)[0])

        # Weights are kept as well, whatever the steps; the difference of two lengths is free of them.
        return (kept(2) - kept(1)) * episodes.support_y.shape[1]


class Remembering(Adapted):
    """T episodes after their support sets."""

    def __init__(self, network: MANNNetwork, params: Params, state: MemoryState, last: Tensor) -> None:
        """``last``: (T, way) the label of the last support image, one-hot, told with each query."""
        self._network, self._params, self._state, self._last = network, params, state, last

    @torch.no_grad()
    def inductive(self, query_x: Tensor) -> Tensor:
        """Each query as the next image after the support set, which itself stays as it was."""
        queries = query_x.shape[1]
        state, before = self._state.repeated(queries), self._last.repeat_interleave(queries, 0)
        logits, _ = self._network.present(self._params, query_x.flatten(0, 1).unsqueeze(1), before.unsqueeze(1), state)
        return logits.view(*query_x.shape[:2], -1)


def in_order(x: Tensor, y: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """(T, S, ...) images and (T, S) labels as ``order`` (T, S) says."""
    tasks = torch.arange(len(x), device=x.device)[:, None]
    return x[tasks, order], y[tasks, order]


def one_step_late(labels: Tensor, way: int, dtype: torch.dtype) -> Tensor:
    """(T, S) -> (T, S, way) one-hot, each told with the next image; zeros with the first."""
    told = F.one_hot(labels, way).to(dtype)
    return F.pad(told[:, :-1], (0, 0, 1, 0))


def presentations(labels: Tensor, way: int) -> Tensor:
    """(T, S) labels -> (T, S) how often each has been shown up to then, itself included."""
    counts = F.one_hot(labels, way).cumsum(1)
    return counts.gather(2, labels.unsqueeze(2)).squeeze(2)
