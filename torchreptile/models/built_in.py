"""The base class of the library's own networks, and the types of parameters and inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from torchreptile.core.errors import ConfigError

if TYPE_CHECKING:
    from torchreptile.models.execution.execution import Execution

Params = dict[str, Tensor]
"""Tensors by the names of a network's parameters; stacked ones have a leading axis of T tasks."""

Shape = tuple[int, ...]
"""Shape of one input: (C, H, W) for an image, (C, L) for a series, (inputs,) for a point of a function."""


def image_sizes(shape: Shape, network: str, square: bool = False) -> tuple[int, int, int]:
    """Return channels, height and width of the images that a built-in network is made for.

    Args:
        shape: of one input.
        network: what to call the network in messages.
        square: whether it needs images that are as high as they are wide.

    Raises:
        ConfigError: the inputs are no images, or not square ones.

    Example:
        >>> image_sizes((3, 32, 64), "the embedding")
        (3, 32, 64)
    """
    own = "name a network of your own (--model net.py:Net, or network=)"
    if len(shape) != 3:
        raise ConfigError(f"{network} takes images (C, H, W), not inputs of shape {shape}; {own}")
    channels, height, width = shape
    if square and height != width:
        raise ConfigError(
            f"{network} takes square images, not {width} x {height} pixels; scale them to a square (--image-size), or "
            f"{own}"
        )
    return channels, height, width


@dataclass(frozen=True)
class ExecutionRequest:
    """What an execution is requested for.

    Attributes:
        name: auto, loop, grouped, matmul, vmap, compiled or native.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        device: where it will run.
        task_steps: about how many inner steps of one task there are to do in all; 0 for a single task.
        precision: fp32, tf32 or bf16.
        second_order: whether gradients of inner steps are differentiated again.
    """

    name: str
    image_shape: Shape
    device: torch.device
    task_steps: float = 0
    precision: str = "fp32"
    second_order: bool = False


class BuiltInNetwork(nn.Module):
    """A network of this library, which may offer faster executions than those of any ``nn.Module``.

    Attributes:
        independent_outputs: whether the output for an input is independent of the other inputs of its batch.
        fusible_blocks: whether the operations between its convolutions can be fused by the compiler on a CPU.
    """

    independent_outputs: ClassVar[bool] = False
    fusible_blocks: ClassVar[bool] = False

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights by the network's rules: by default they stay as PyTorch drew them."""

    def execution(self, request: ExecutionRequest) -> Execution | None:
        """Return the network's own execution for ``request``, or None to run it like any ``nn.Module``.

        Args:
            request: the requested execution, and what it is for.

        Raises:
            ConfigError: the network has no such execution, or it is not possible on this machine.
        """
        return None
