"""MANN, the memory-augmented neural network (Santoro et al. 2016): it adapts by reading an episode image by image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.algorithms.base import Adapted, ExtraMetrics
from torchreptile.algorithms.execution_context import ExecutionContext
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.rows.mann import MANNSettings
from torchreptile.algorithms.task_gradient import LossGradient
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.data.augmentation import DRAWS, jittered
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import Sampler, Store, sampler_of
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.built_in import Params
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.task_chunks import saved_bytes
from torchreptile.models.losses import answers, task_losses
from torchreptile.models.mann import MANNNetwork, MemoryState

REPORTED = (1, 2, 3, 4, 5, 10)  # presentations of a class in the paper's table 1


@final
class MANN(LossGradient):
    """MANN: a network with an external memory reads labelled images one after another, and its weights stay fixed.

        logits_t, memory_t = network(x_t, y_(t-1), memory_(t-1))
        loss = mean over t of cross-entropy(logits_t, y_t), the first images of a class included

    The label of an image arrives with the next image, so the network must store an image until its label comes, and
    find both again when the class recurs. Santoro et al. 2016 (arXiv 1605.06065), sections 2 and 3.

    Training and the extra metrics use episodes of ``train_shots`` images per class in random order. In few-shot
    evaluation the support set is presented first, and then each query alone (inductive).
    """

    def __init__(self, blueprint: Blueprint, config: Config, context: ExecutionContext) -> None:
        super().__init__(blueprint, config, context)
        if not isinstance(blueprint.module, MANNNetwork):
            kind = type(blueprint.module).__name__
            raise ConfigError(f"mann is a network with an external memory; it cannot run {kind}")
        if config.run.precision == "bf16":
            raise ConfigError("precision is bf16, but mann needs fp32 or tf32")
        self.memory_network = blueprint.module

    @staticmethod
    def network(config: Config) -> Network:
        """Return a controller with memory, in the sizes of the settings."""
        own = config.own(MANNSettings)
        return partial(
            MANNNetwork,
            units=own.mann_units,
            slots=own.mann_slots,
            width=own.mann_width,
            heads=own.mann_heads,
            decay=own.mann_decay,
            separate_write=own.mann_separate_write,
            read_first=own.mann_read_first,
        )

    @classmethod
    def choose_execution(
        cls, config: Config, blueprint: Blueprint, device: torch.device, task_steps: float
    ) -> Execution:
        """Return the only execution: one set of weights reads all episodes in parallel."""
        execution = choose_execution("loop", blueprint.module, blueprint.image_shape, device)
        return replace(execution, name="sequence", reason="one network reads all episodes in parallel")

    def sampler(self, store: Store) -> Sampler:
        """Return a sampler of training episodes with ``train_shots`` images per class and no query set."""
        return sampler_of(store, self.config.task.way, self.config.task.images_per_class, queries=0)

    def training_draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """Draw (T, S, 1) numbers that set which image comes when, or (T, S, 4) that also shift and rotate images."""
        numbers = 1 + DRAWS if self.config.own(MANNSettings).mann_jitter else 1
        return torch.rand(tasks, images, numbers, generator=generator, device=generator.device)

    def losses(self, params: Params, episodes: Episodes, drawn: Tensor) -> Tensor:
        """Return the mean cross-entropy over the images of each episode, (T,)."""
        own, images = self.config.own(MANNSettings), episodes.support_y.shape[1]
        if own.mann_replacement:
            order = (drawn[..., 0] * images).long().clamp_(max=images - 1)
        else:
            order = drawn[..., 0].argsort(1)
        x, labels = in_order(episodes.support_x, episodes.support_y, order)
        if own.mann_jitter:
            x = jittered(x, drawn[..., 1:], own.mann_jitter)
        return task_losses(self.read_through(params, x, labels), labels)

    def read_through(self, params: Params, x: Tensor, labels: Tensor) -> Tensor:
        """Present images (T, S, C, H, W) with labels (T, S) one after another, and return logits (T, S, way)."""
        before = one_step_late(labels, self.config.task.way, x.dtype)
        return self.memory_network.present(params, x, before, self.memory_network.fresh(x, len(x)))[0]

    def draw(self, tasks: int, images: int, generator: torch.Generator) -> Tensor:
        """Draw a random order for each support set, (T, S)."""
        return torch.rand(tasks, images, generator=generator, device=generator.device).argsort(1)

    def adapt(self, state: MetaState, support_x: Tensor, support_y: Tensor, drawn: Tensor) -> Adapted:
        """Present the support sets; the last label is presented later, with each query.

        Args:
            state: what was meta-learned; not modified.
            support_x: (T, S, C, H, W) images.
            support_y: (T, S) labels.
            drawn: (T, S) order of presentation.
        """
        x, labels = in_order(support_x, support_y, drawn)
        before = one_step_late(labels, self.config.task.way, x.dtype)
        start = self.memory_network.fresh(x, len(x))
        _, after = self.memory_network.present(state.params, x, before, start)
        last = F.one_hot(labels[:, -1], self.config.task.way).to(x.dtype)
        return AdaptedMANN(self.memory_network, state.params, after, last)

    def extra_metrics(self, store: Store) -> ExtraMetrics | None:
        """Return accuracy by presentation: on the 1st, 2nd, ... image of a class, as in the paper's table 1.

        Episodes have 10 images per class as in the paper, or as many as the smallest class of ``store`` has.
        """
        assert isinstance(store, ImageStore)  # MANN does not fit functions
        shown = min(REPORTED[-1], int(store.class_sizes.min()))
        names = tuple(f"presentation {number}" for number in REPORTED if number <= shown)
        return ExtraMetrics(names, sampler_of(store, self.config.task.way, shown, queries=0))

    def measure_extra(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Tensor:
        """Return the share of classes labelled correctly at each presentation, 0 to 1: (presentations, T)."""
        tasks, images = episodes.support_y.shape
        order, shown = self.draw(tasks, images, generator), images // self.config.task.way
        reported = [number for number in REPORTED if number <= shown]
        self.fit_chunks(state, episodes)

        @torch.no_grad()
        def by_presentation(part: slice) -> Tensor:
            x, labels = in_order(episodes[part].support_x, episodes[part].support_y, order[part])
            logits = self.read_through(state.params, x, labels)
            correct, turn = (answers(logits, labels) == labels), presentations(labels, self.config.task.way)
            return torch.stack([(correct & (turn == number)).sum(1) / self.config.task.way for number in reported])

        blank = torch.zeros(len(reported), len(episodes), device=order.device)
        return self.context.map_tasks(by_presentation, blank)

    def task_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return the bytes that one episode saves for the backward pass."""
        leaves = {name: p.detach().requires_grad_() for name, p in state.params.items()}
        one, network = episodes.support_x[:1, :1], self.memory_network
        start = network.fresh(one, 1)

        def saved(steps: int) -> int:
            x, before = one.expand(1, steps, *one.shape[2:]), one.new_zeros(1, steps, network.way)
            return saved_bytes(lambda: network.present(leaves, x, before, start)[0])

        # The weights are saved for any number of steps; they cancel in the difference.
        return (saved(2) - saved(1)) * episodes.support_y.shape[1]


class AdaptedMANN(Adapted):
    """T memory-augmented networks that have read their support sets."""

    def __init__(self, network: MANNNetwork, params: Params, state: MemoryState, last: Tensor) -> None:
        """Predict from the state after the support sets.

        Args:
            network: the architecture.
            params: its weights by name, common to all tasks.
            state: controller and memory of T episodes after their support sets.
            last: (T, way) label of the last support image, one-hot, presented with each query.
        """
        self._network, self._params, self._state, self._last = network, params, state, last

    @torch.no_grad()
    def inductive(self, query_x: Tensor) -> Tensor:
        """Predict each query as the next image after the support set: (T, Q, C, H, W) -> logits (T, Q, way)."""
        queries = query_x.shape[1]
        state, before = self._state.repeated(queries), self._last.repeat_interleave(queries, 0)
        logits, _ = self._network.present(self._params, query_x.flatten(0, 1).unsqueeze(1), before.unsqueeze(1), state)
        return logits.view(*query_x.shape[:2], -1)


def in_order(x: Tensor, y: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (T, S, ...) and labels (T, S) in ``order`` (T, S)."""
    tasks = torch.arange(len(x), device=x.device)[:, None]
    return x[tasks, order], y[tasks, order]


def one_step_late(labels: Tensor, way: int, dtype: torch.dtype) -> Tensor:
    """Return the one-hot labels delayed by one image, zeros first: (T, S) -> (T, S, way)."""
    one_hot = F.one_hot(labels, way).to(dtype)
    return F.pad(one_hot[:, :-1], (0, 0, 1, 0))


def presentations(labels: Tensor, way: int) -> Tensor:
    """Return how often each label has been presented up to and including each image: (T, S) -> (T, S).

    Example:
        >>> import torch
        >>> presentations(torch.tensor([[0, 1, 0, 0]]), way=2)
        tensor([[1, 1, 2, 3]])
    """
    counts = F.one_hot(labels, way).cumsum(1)
    return counts.gather(2, labels.unsqueeze(2)).squeeze(2)
