"""Networks of one's own: found in a file that the user names, and tried once before anything is trained with them."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from torchreptile.core.errors import ConfigError
from torchreptile.models.blueprint import Network, Shape, build_network

TINY_BATCH = 2


def own_network(named: str) -> Network | None:
    """What ``--model`` asks for, if anything: see :func:`load_network`."""
    return load_network(named) if named else None


def load_network(named: str) -> Network:
    """The network that ``net.py:Net`` names: a class or function of image shape (C, H, W) and outputs.

    The file is run as Python code, so name only one you trust; no checkpoint or weights file ever has this done.

    Args:
        named: a Python file and a name in it, parted by a colon.

    Raises:
        ConfigError: there is no such file or name, or the file fails.
    """
    path, colon, name = named.rpartition(":")
    if not colon or not name.isidentifier() or not path.endswith(".py"):
        raise ConfigError(f"model is {named}; it must be a Python file and a name in it, such as net.py:Net")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"model is {named}, but there is no file {file}")
    key = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"torchreptile_model_{file.stem}_{key}", file)
    assert spec is not None
    assert spec.loader is not None  # both are given for every .py file
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses, for one, look their module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # someone else's code may fail in any way
        del sys.modules[spec.name]
        raise ConfigError(f"model {named}: {file} fails ({type(error).__name__}: {_first_line(error)})") from error
    found = module.__dict__.get(name)
    if not callable(found):
        callables = sorted(n for n, value in module.__dict__.items() if callable(value) and not n.startswith("_"))
        raise ConfigError(f"model {named}: {file} has no {name} to call; it has {', '.join(callables) or 'nothing'}")
    return cast(Network, found)


def check_network(network: Network, image_shape: Shape, outputs: int) -> None:
    """Try a network of one's own on a tiny batch.

    Args:
        network: makes the module.
        image_shape: (C, H, W) of the images it will see, or (inputs,) of points.
        outputs: how many numbers it must make of each.

    Raises:
        ConfigError: it fails, is no module, has nothing to learn, or gives something else than (images, outputs).
    """
    name = getattr(network, "__name__", type(network).__name__)
    inputs, what = ("images", "image shape (C, H, W)") if len(image_shape) == 3 else ("points", "shape (inputs,)")
    try:
        with torch.random.fork_rng(devices=[]):
            made: object = network(image_shape, outputs)
    except Exception as error:  # someone else's code may fail in any way
        raise ConfigError(
            f"network {name}: {name}({image_shape}, {outputs}) fails ({type(error).__name__}: {_first_line(error)}); "
            f"it is called with the {what} and the number of outputs"
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"network {name}: it gives a {type(made).__name__}; it must give a torch.nn.Module")
    if not list(made.parameters()):
        raise ConfigError(f"network {name}: it has no parameters, so there is nothing to learn")
    images = torch.zeros(TINY_BATCH, *image_shape)
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():  # Dropout draws
            out: object = build_network(network, image_shape, outputs)(images)
    except Exception as error:
        raise ConfigError(
            f"network {name}: it fails on {inputs} {tuple(images.shape)} ({type(error).__name__}: {_first_line(error)})"
        ) from error
    shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if shape != (TINY_BATCH, outputs):
        raise ConfigError(
            f"network {name}: {inputs} {tuple(images.shape)} give {shape}; it must give {(TINY_BATCH, outputs)}, "
            f"{outputs} numbers per {inputs[:-1]}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0]
