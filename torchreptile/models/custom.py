"""Custom networks: loaded from a Python file, and tried on a tiny batch before anything is trained with them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from torchreptile.core.errors import ConfigError
from torchreptile.core.random_state import seeded
from torchreptile.core.user_code import described, load_from_file
from torchreptile.models.behaviour import Trial, changed_parameters
from torchreptile.models.blueprint import Network, build_network
from torchreptile.models.built_in import Shape
from torchreptile.models.module_call import ModuleCall, params_of

TINY_BATCH = 2
# By the axes of an input.
INPUTS = {1: "points", 2: "series", 3: "images"}
SHAPES = {1: "shape (inputs,)", 2: "shape (C, L)", 3: "image shape (C, H, W)"}
DTYPES = (torch.float32, torch.complex64)  # of parameters


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
        image_shape: (C, H, W) of the images it will see, (C, L) of series, or (inputs,) of points.
        outputs: numbers it must return per image, series or point.

    Raises:
        ConfigError: it fails, returns no module, has nothing to train, its output is not shaped (inputs, outputs), or a
            call depends on the calls before it.

    Example:
        >>> from torch import nn
        >>> check_network(lambda image_shape, outputs: nn.Linear(*image_shape, outputs), (3,), 2)
        >>> check_network(lambda image_shape, outputs: nn.Flatten(), (3,), 2)
        Traceback (most recent call last):
        torchreptile.core.errors.ConfigError: network <lambda> has no parameters, so there is nothing to train
    """
    name = network_name(network)
    inputs = INPUTS[len(image_shape)]
    _require_module(network, image_shape, outputs)
    images = torch.zeros(TINY_BATCH, *image_shape)
    try:
        module = build_network(network, image_shape, outputs)
        with seeded(0), torch.no_grad():  # Dropout draws random numbers
            out: object = ModuleCall(module, channels_last=False)(params_of(module), images)
    except Exception as error:
        raise ConfigError(f"network {name} fails on {inputs} {tuple(images.shape)} ({described(error)})") from error
    shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if shape != (TINY_BATCH, outputs):
        raise ConfigError(
            f"network {name}: {inputs} {tuple(images.shape)} give {shape}; they must give {(TINY_BATCH, outputs)}, "
            f"{outputs} numbers per {inputs if inputs == 'series' else inputs[:-1]}"
        )
    assert isinstance(out, Tensor)
    if not out.is_floating_point():
        raise ConfigError(f"network {name} gives {_dtype(out)} numbers; they must be real, such as float32")
    _require_no_state(name, module, image_shape)


def network_name(network: Network) -> str:
    """Return how messages name a network: as its class or function is called."""
    return str(getattr(network, "__name__", type(network).__name__))


def _require_module(network: Network, image_shape: Shape, outputs: int) -> None:
    """Refuse a network that makes no module with parameters that can be trained.

    Raises:
        ConfigError: it fails, returns something else, or its parameters are missing, all frozen or of another dtype.
    """
    name = network_name(network)
    what = SHAPES[len(image_shape)]
    try:
        with seeded(0):
            made: object = network(image_shape, outputs)
    except Exception as error:  # a user's code may raise anything
        raise ConfigError(
            f"network {name}: {name}({image_shape}, {outputs}) fails ({described(error)}); "
            f"it is called with the {what} and the number of outputs"
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"network {name} returns a {type(made).__name__}; it must return a torch.nn.Module")
    parameters = dict(made.named_parameters())
    if not parameters:
        raise ConfigError(f"network {name} has no parameters, so there is nothing to train")
    if not any(p.requires_grad for p in parameters.values()):
        raise ConfigError(
            f"network {name}: all {len(parameters)} parameters have requires_grad=False, so there is nothing to train"
        )
    for parameter, p in parameters.items():
        if p.dtype not in DTYPES:
            raise ConfigError(
                f"network {name}: its parameter {parameter} is {_dtype(p)}; parameters must be float32 or complex64 "
                "(for less precision use --precision bf16; constants are buffers)"
            )


def _require_no_state(name: str, module: nn.Module, image_shape: Shape) -> None:
    """Refuse a network whose calls depend on those before: tasks would no longer be independent, nor a resume exact.

    Raises:
        ConfigError: outputs differ from call to call, or a call writes into parameters.
    """
    try:
        repeatable = Trial(module, image_shape, shaken=0.0).repeatable()
        changed = changed_parameters(module, image_shape)
        as_given = changed or Trial(module, image_shape).called_as_given()
    except Exception as error:  # a user's code may raise anything
        raise ConfigError(f"network {name} fails on random images ({described(error)})") from error
    if changed:
        raise ConfigError(f"network {name} writes into its parameter {changed[0]} when it is called; use a buffer")
    if not repeatable:
        raise ConfigError(
            f"network {name}: the same images give other outputs when they are given again; make what it remembers a "
            "buffer, and draw random numbers from torch's global generator"
        )
    if not as_given:
        raise ConfigError(
            f"network {name}: its gradient does not follow from the parameters it is given; call its layers directly, "
            "without torch.utils.checkpoint, and keep no second reference to their weights"
        )


def _dtype(tensor: Tensor) -> str:
    """Return the name of a dtype, such as float16."""
    return str(tensor.dtype).removeprefix("torch.")
