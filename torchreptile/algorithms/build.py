"""Building an algorithm from its settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.execution_context import ExecutionContext
from torchreptile.core.config import AlgorithmRow, Config, NetworkConfig
from torchreptile.core.config.algorithm_table import algorithm_row, register_algorithm
from torchreptile.core.distributed.process_group import ALONE, Processes
from torchreptile.core.errors import ConfigError
from torchreptile.models.blueprint import Blueprint, Network
from torchreptile.models.built_in import Shape
from torchreptile.models.custom import check_network
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.task_chunks import NOT_BEGUN, ChunkSizes, TaskChunks
from torchreptile.models.mlp import MLP

# The setting that leads to an execution which cannot be requested by name.
ASKED_AS = {"shared": "loop", "sequence": "loop"}


def build_algorithm(
    config: Config,
    image_shape: Shape,
    device: torch.device,
    task_steps: float = 0,
    processes: Processes = ALONE,
    network: Network | None = None,
    classes: int = 0,
    targets: int = 0,
    execution: str = "",
    began: ChunkSizes = NOT_BEGUN,
) -> Algorithm:
    """Build the algorithm that ``config`` names, for images or points of a shape.

    Args:
        config: all settings.
        image_shape: (C, H, W) of images, or (inputs,) of points.
        device: where it will run.
        task_steps: about how many inner steps there are to do, which decides whether compiling pays off.
        processes: the processes that share the tasks.
        network: makes the module; by default the one published with the algorithm.
        classes: number of meta-training classes; 0 if it is not trained.
        targets: values to predict of every point; 0 for labels.
        execution: the execution to use if ``config`` leaves it at auto.
        began: the sizes of chunks that a resumed run was computed with; they are kept if the execution is
            ``execution``.

    Raises:
        ConfigError: the network does not fit, or does not support the requested execution, in this or another process.

    Example:
        >>> import torch
        >>> config = Config().replace(execution="grouped")  # Reptile on Omniglot, 5-way 1-shot
        >>> algorithm = build_algorithm(config, (1, 28, 28), torch.device("cpu"))
        >>> state = algorithm.begin(seed=0)
        >>> sum(p.numel() for p in state.params.values())
        113221
    """
    kind = algorithm_class(config.method.algorithm)
    if targets:
        outputs, published = targets, network_for_functions(config.network)
    else:
        outputs, published = kind.outputs(config), kind.network(config)
    if network is not None:
        check_network(network, image_shape, outputs)
    blueprint = Blueprint.of(network or published, image_shape, outputs, device, classes)

    def choose(name: str) -> Execution:
        named = name and config.run.execution == "auto"
        asked = config.replace(execution=ASKED_AS.get(name, name)) if named else config
        return kind.choose_execution(asked, blueprint, device, task_steps)

    chosen = choose(execution) if processes.size == 1 else _chosen_by_first(choose, execution, processes)
    began = began if chosen.name == execution else NOT_BEGUN
    chunks = TaskChunks(config.run.task_chunk, device, began, processes.least)
    return kind(blueprint, config, ExecutionContext(chosen, chunks, processes))


def _chosen_by_first(choose: Callable[[str], Execution], name: str, processes: Processes) -> Execution:
    """Return the execution that the first process chooses, which all have: sums are rounded alike in all of them.

    Raises:
        ConfigError: a process does not have it.
    """
    with processes.together():
        chosen = choose(name) if processes.rank == 0 else None
    its = processes.from_first(chosen.name.encode() if chosen else b"").decode()
    with processes.together():
        chosen = chosen or choose(its)
        if chosen.name != its:
            raise ConfigError(f"the first process computes by execution {its}, and here it would be {chosen.name}")
    return chosen


def network_for_functions(config: NetworkConfig) -> Network:
    """Return the network for function fitting, the same for all algorithms."""
    return partial(MLP, units=config.mlp_units, layers=config.mlp_layers, activation=config.mlp_activation)


def algorithm_class(name: str) -> type[Algorithm]:
    """Return the class of the algorithm called ``name``.

    Raises:
        ConfigError: there is no such algorithm, or it cannot be imported.

    Example:
        >>> algorithm_class("protonet").__name__
        'PrototypicalNetworks'
    """
    if name in _registered:
        return _registered[name]
    module, _, attribute = algorithm_row(name).implementation.partition(":")
    try:
        kind = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"algorithm {name}: {module}:{attribute} cannot be imported ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, Algorithm)):
        raise ConfigError(f"algorithm {name}: {module}:{attribute} is no subclass of torchreptile's Algorithm")
    return kind


def use_algorithm(kind: type[Algorithm]) -> str:
    """Make an algorithm class of your own known to this process and return its name.

    Args:
        kind: a subclass of :class:`Algorithm` with an :class:`AlgorithmRow` as its attribute ``row``.

    Raises:
        ConfigError: it has no row, or its name belongs to another algorithm.
    """
    row = getattr(kind, "row", None)
    if not isinstance(row, AlgorithmRow):
        raise ConfigError(f"{kind.__name__} has no row; give it row = AlgorithmRow(name=..., title=...)")
    if _registered.get(row.name) is not kind:
        register_algorithm(row)
        _registered[row.name] = kind
    return row.name


def registered_class(name: str) -> type[Algorithm] | None:
    """Return the class that :func:`use_algorithm` made known under ``name``, if there is one."""
    return _registered.get(name)


_registered: dict[str, type[Algorithm]] = {}
