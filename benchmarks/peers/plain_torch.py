"""Parts shared by the PyTorch peers: plain modules, drawing of tasks, and the frame of an outer step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from work import (
    BATCH_NORM_EPS,
    BLOCKS,
    CLASSES,
    IMAGES_PER_CLASS,
    INNER_BATCH,
    INNER_STEPS,
    KERNEL,
    TASKS,
    WAY,
    Case,
    Network,
    Protocol,
    noise_store,
    same_padding,
)

Batches = Iterable[tuple[Tensor, Tensor]]
"""Per inner step, images (TASKS, B, C, H, W) from 0 to 1 and labels (TASKS, B)."""


class Backbone(nn.Module):
    """The convolutional blocks: (B, C, H, W) -> (B, features)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.stride, hidden = network.stride, network.hidden
        channels = [network.channels, *[hidden] * BLOCKS]
        self.pads = [same_padding(side, network.stride) for side in network.sides[:-1]]
        # The convolution does symmetric padding itself.
        symmetric = [before if before == after else 0 for before, after in self.pads]
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[block], hidden, KERNEL, self.stride, symmetric[block]) for block in range(BLOCKS)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS, track_running_stats=False) for _ in range(BLOCKS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the features, with TensorFlow's 'SAME' padding."""
        for (before, after), conv, norm in zip(self.pads, self.convs, self.norms, strict=True):
            if before != after:
                x = F.pad(x, (before, after, before, after))
            x = F.relu(norm(conv(x)))
            if self.stride == 1:
                x = F.max_pool2d(x, 2, ceil_mode=True)
        return x.flatten(1)


class Net(nn.Module):
    """Backbone and linear head, with torchreptile's initial weights."""

    def __init__(self, network: Network, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        self.backbone, self.head = Backbone(network), nn.Linear(network.features, WAY)
        load(self, weights)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits: (B, C, H, W) -> (B, way)."""
        out: Tensor = self.head(self.backbone(x))
        return out


def load(module: nn.Module, weights: dict[str, np.ndarray]) -> None:
    """Copy weights, in torchreptile's order (convolutions, norms, head), into a module with the same order."""
    names = [name for name, _ in module.named_parameters()]
    module.load_state_dict(dict(zip(names, map(torch.from_numpy, weights.values()), strict=True)))


class Tasks:
    """Random tasks from images in memory."""

    def __init__(self, network: Network, shots: int) -> None:
        """Create the images; tasks have ``shots`` images per class."""
        self._store, self._shots = torch.from_numpy(noise_store(network)), shots
        self._generator = torch.Generator().manual_seed(0)

    def support(self) -> tuple[Tensor, Tensor]:
        """Draw TASKS tasks: images (TASKS, WAY * shots, C, H, W) from 0 to 1, and labels (TASKS, WAY * shots)."""
        keys = torch.rand(TASKS, CLASSES, generator=self._generator)
        classes = keys.topk(WAY, dim=1).indices
        keys = torch.rand(TASKS, WAY, IMAGES_PER_CLASS, generator=self._generator)
        images = classes[:, :, None] * IMAGES_PER_CLASS + keys.topk(self._shots, dim=2).indices
        labels = torch.arange(WAY).repeat_interleave(self._shots).expand(TASKS, -1)
        return self._store[images.flatten(1)].float().div_(255), labels

    def minibatches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw TASKS tasks; yield INNER_STEPS mini-batches of images (TASKS, INNER_BATCH, C, H, W) and labels."""
        x, y = self.support()
        order = torch.rand(y.shape, generator=self._generator).argsort(1)
        tasks = torch.arange(TASKS)[:, None]
        for chosen in order.view(TASKS, INNER_STEPS, INNER_BATCH).unbind(1):
            yield x[tasks, chosen], y[tasks, chosen]


def recorded(images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the mini-batches of one outer step of a case, in the form of :meth:`Tasks.minibatches`."""
    for x, y in zip(images, labels, strict=True):
        yield torch.from_numpy(x).float().div_(255), torch.from_numpy(y)


def by_task(batches: Batches) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield each task's mini-batches, with images in channels_last order, which is faster for a single network."""
    steps = list(batches)
    for task in range(TASKS):
        yield [(x[task].contiguous(memory_format=torch.channels_last), y[task]) for x, y in steps]


class Functional(ABC):
    """A contestant that draws tasks; subclasses implement the outer step."""

    def __init__(self, network: Network, rules: Protocol, case: Case) -> None:
        self.net, self._tasks = Net(network, case.weights), Tasks(network, rules.shots)

    @abstractmethod
    def learn(self, batches: Batches) -> Tensor:
        """Run an outer step; return its losses (steps, TASKS)."""

    def step(self, count: int) -> None:
        """Run outer steps on random tasks."""
        for _ in range(count):
            self.learn(self._tasks.minibatches())

    def check(self, case: Case) -> np.ndarray:
        """Run outer steps on the case's images; return their losses (outer steps, inner steps, TASKS)."""
        steps = zip(case.images, case.labels, strict=True)
        return torch.stack([self.learn(recorded(*step)) for step in steps]).double().numpy()
