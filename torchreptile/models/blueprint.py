"""Building a network, and drawing its weights from a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from torchreptile.core.random_state import seeded
from torchreptile.models.built_in import BuiltInNetwork, Shape
from torchreptile.models.module_call import params_of

LAZY_BATCH = 2  # inputs of the call that gives lazy layers their shapes

Network = Callable[[Any, int], nn.Module]
"""(shape of one input, outputs) -> a module that maps images (B, C, H, W), or points (B, inputs), to (B, outputs): a
logit per class, an embedding, or the values of a function."""


def build_network(network: Network, image_shape: Shape, way: int, seed: int = 0) -> nn.Module:
    """Build a network with weights drawn from ``seed`` by its own rules: same seed, same weights.

    Its BatchNorm and InstanceNorm layers use the statistics of each batch or image, in training and in evaluation, and
    have no running averages, which would leak from task to task. Lazy layers get their shapes by a call.

    Args:
        network: makes the module.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        way: outputs of the module.
        seed: seeds the generators of torch, Python and NumPy while the module is made; the caller's random state is
            unchanged.

    Example:
        >>> from torchreptile.models.conv4.network import for_images
        >>> module = build_network(for_images, (1, 28, 28), way=5, seed=0)
        >>> sum(p.numel() for p in module.parameters())
        113221
    """
    with seeded(seed):
        module = network(image_shape, way)
        if isinstance(module, BuiltInNetwork):
            module.initialise(torch.Generator().manual_seed(seed))
            return module
        module.train()
        materialise(module, image_shape)
    return _without_averages(module)


def materialise(module: nn.Module, image_shape: Shape) -> None:
    """Give the lazy layers of a module their shapes and weights, by calling it once with zeros; others are not called.

    Args:
        module: the network; its weights are drawn from the global generators.
        image_shape: (C, H, W) of images, or (inputs,) of points.
    """
    if any(nn.parameter.is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        with torch.no_grad():
            module(torch.zeros(LAZY_BATCH, *image_shape))


def _without_averages(module: nn.Module) -> nn.Module:
    """Remove the running averages of BatchNorm and InstanceNorm, so that their statistics are those of the batch."""
    for part in module.modules():
        if isinstance(part, _NormBase) and part.track_running_stats:
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None
    return module


def initial_params(network: Network, image_shape: Shape, way: int, seed: int) -> dict[str, Tensor]:
    """Return freshly drawn weights by name: same seed, same weights.

    Args:
        network: makes the module.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        way: outputs of the module.
        seed: of the weights.
    """
    module = build_network(network, image_shape, way, seed)
    return params_of(module)


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A network's architecture, and how fresh weights for it are drawn.

    Attributes:
        network: makes the module.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        outputs: numbers the module returns for an image or a point.
        module: the architecture; its own weights are never used.
        classes: number of meta-training classes; 0 if nothing is trained.

    Example:
        >>> from torchreptile.models.conv4.network import for_images
        >>> blueprint = Blueprint.of(for_images, (1, 28, 28), outputs=5)
        >>> tuple(blueprint.params(seed=0)["head.weight"].shape)
        (5, 256)
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
        """Build the module on ``device``.

        Args:
            network: makes the module.
            image_shape: (C, H, W) of images, or (inputs,) of points.
            outputs: numbers the module returns for an image or a point.
            device: of the module, and of the weights drawn for it.
            classes: number of meta-training classes; 0 if nothing is trained.
        """
        return cls(network, image_shape, outputs, build_network(network, image_shape, outputs).to(device), classes)

    def params(self, seed: int) -> dict[str, Tensor]:
        """Return freshly drawn weights by name, on the module's device: same seed, same weights."""
        fresh = initial_params(self.network, self.image_shape, self.outputs, seed)
        devices = {name: p.device for name, p in self.module.named_parameters()}
        return {name: p.to(devices[name]) for name, p in fresh.items()}
