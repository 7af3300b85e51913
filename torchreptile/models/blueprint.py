"""A network's form, and how its weights are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchreptile.models.conv4.network import Conv4
from torchreptile.models.mann import MANNNetwork

Shape = tuple[int, ...]
"""Of one input: (C, H, W) for images, (inputs,) for points of functions."""

Network = Callable[[Any, int], nn.Module]
"""(shape of an image (C, H, W), outputs) -> a module that takes images (B, C, H, W) to (B, outputs): a logit per class,
or the numbers of an embedding. For functions: (inputs,), and (B, inputs) to (B, targets)."""


def build_network(network: Network, image_shape: Shape, way: int, seed: int = 0) -> nn.Module:
    """The module, with weights drawn by its own rules: same seed, same weights.

    Its BatchNorm layers go by the batch at hand and keep no running averages, in training and in evaluation,
    as the built-in networks do: averages would leak from task to task.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = network(image_shape, way)
    if isinstance(module, Conv4 | MANNNetwork):
        module.initialise(torch.Generator().manual_seed(seed))
        return module
    without_averages: nn.Module = torch.func.replace_all_batch_norm_modules_(module)
    return without_averages.train()


def initial_params(network: Network, image_shape: Shape, way: int, seed: int) -> dict[str, Tensor]:
    """Freshly drawn weights by name: same seed, same weights."""
    module = build_network(network, image_shape, way, seed)
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A network's form, and how fresh weights for it are drawn.

    Attributes:
        network: makes the module.
        image_shape: (C, H, W), or (inputs,) of points.
        outputs: numbers the module makes of an image or a point.
        module: gives the form alone; its own weights are never used.
        classes: of the images to train on; 0 where nothing is trained.
    """

    network: Network
    image_shape: Shape
    outputs: int
    module: nn.Module
    classes: int = 0

    @classmethod
    def of(
        cls,
        network: Network,
        image_shape: Shape,
        outputs: int,
        device: torch.device | str = "cpu",
        classes: int = 0,
    ) -> Blueprint:
        """With its module on ``device``."""
        return cls(network, image_shape, outputs, build_network(network, image_shape, outputs).to(device), classes)

    def params(self, seed: int) -> dict[str, Tensor]:
        """Freshly drawn weights by name, on the module's device: same seed, same weights."""
        fresh = initial_params(self.network, self.image_shape, self.outputs, seed)
        devices = {name: p.device for name, p in self.module.named_parameters()}
        return {name: p.to(devices[name]) for name, p in fresh.items()}
