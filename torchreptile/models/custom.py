"""Custom networks: loaded from a Python file, and tried on a tiny batch before anything is trained with them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from torchreptile.core.errors import ConfigError
from torchreptile.core.user_code import described, load_from_file
from torchreptile.models.blueprint import Network, build_network
from torchreptile.models.built_in import Shape

TINY_BATCH = 2


def requested_network(named: str) -> Network | None:
    """Return the network that ``--model`` names, or None if it is empty.

    Args:
        named: a Python file and a name in it, such as ``net.py:Net``, or "".

    Raises:
        ConfigError: there is no such file or name, or the file fails.
    """
    return load_network(named) if named else None


def load_network(named: str) -> Network:
    """Return the class or function that ``net.py:Net`` names, called with the image shape (C, H, W) and outputs.

    The file is run as Python code, so name only one you trust. Loading a checkpoint or weights never runs such a file.

    Args:
        named: a Python file and a name in it, separated by a colon.

    Raises:
        ConfigError: there is no such file or name, or the file fails.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "net.py"
        >>> _ = file.write_text('''
        ... import math
        ... from torch import nn
        ... def net(image_shape, outputs):
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), outputs))
        ... ''')
        >>> load_network(f"{file}:net")((1, 28, 28), 5)
        Sequential(
          (0): Flatten(start_dim=1, end_dim=-1)
          (1): Linear(in_features=784, out_features=5, bias=True)
        )
    """
    return cast(Network, load_from_file("model", named))


def check_network(network: Network, image_shape: Shape, outputs: int) -> None:
    """Try a custom network on a batch of two inputs, without touching the global random state.

    Args:
        network: makes the module.
        image_shape: (C, H, W) of the images it will see, or (inputs,) of points.
        outputs: numbers it must return per image or point.

    Raises:
        ConfigError: it fails, returns no module, has no parameters, or its output is not shaped (inputs, outputs).

    Example:
        >>> from torch import nn
        >>> check_network(lambda image_shape, outputs: nn.Linear(*image_shape, outputs), (3,), 2)
        >>> check_network(lambda image_shape, outputs: nn.Flatten(), (3,), 2)
        Traceback (most recent call last):
        torchreptile.core.errors.ConfigError: network <lambda> has no parameters, so there is nothing to train
    """
    name = getattr(network, "__name__", type(network).__name__)
    inputs, what = ("images", "image shape (C, H, W)") if len(image_shape) == 3 else ("points", "shape (inputs,)")
    try:
        with torch.random.fork_rng(devices=[]):
            made: object = network(image_shape, outputs)
    except Exception as error:  # a user's code may raise anything
        raise ConfigError(
            f"network {name}: {name}({image_shape}, {outputs}) fails ({described(error)}); "
            f"it is called with the {what} and the number of outputs"
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"network {name} returns a {type(made).__name__}; it must return a torch.nn.Module")
    if not list(made.parameters()):
        raise ConfigError(f"network {name} has no parameters, so there is nothing to train")
    images = torch.zeros(TINY_BATCH, *image_shape)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # Dropout draws random numbers
            out: object = build_network(network, image_shape, outputs)(images)
    except Exception as error:
        raise ConfigError(f"network {name} fails on {inputs} {tuple(images.shape)} ({described(error)})") from error
    shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if shape != (TINY_BATCH, outputs):
        raise ConfigError(
            f"network {name}: {inputs} {tuple(images.shape)} give {shape}; they must give {(TINY_BATCH, outputs)}, "
            f"{outputs} numbers per {inputs[:-1]}"
        )
