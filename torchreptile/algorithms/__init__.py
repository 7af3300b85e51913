"""The few-shot learners, each in a file of its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from torchreptile.algorithms.base import Algorithm as Algorithm
from torchreptile.algorithms.base import Machinery as Machinery
from torchreptile.algorithms.base import MetaGradient as MetaGradient
from torchreptile.algorithms.base import MetaState as MetaState
from torchreptile.algorithms.base import Predictions as Predictions
from torchreptile.algorithms.foml import FirstOrderMAML as FirstOrderMAML
from torchreptile.algorithms.reptile import Reptile as Reptile
from torchreptile.chunks import TaskChunks
from torchreptile.config import Config
from torchreptile.execution import choose_execution
from torchreptile.models import Network, build_network, for_images
from torchreptile.processes import ALONE, Processes

ALGORITHMS: dict[str, Callable[[nn.Module, Config, Machinery], Algorithm]] = {
    "reptile": Reptile,
    "foml": FirstOrderMAML,
}


def build_algorithm(
    config: Config,
    image_shape: tuple[int, int, int],
    device: torch.device,
    task_steps: float = 0,
    processes: Processes = ALONE,
    network: Network = for_images,
) -> Algorithm:
    """The algorithm that ``config`` names, for images of that shape.

    Args:
        config: all settings.
        image_shape: (C, H, W).
        device: where it will run.
        task_steps: about how many inner steps there are to do, which decides whether compiling pays.
        processes: with whom to share the tasks.
        network: makes the module; by default the paper's.

    Raises:
        ConfigError: the network cannot be executed as the settings ask.
    """
    module = build_network(network, image_shape, config.task.way).to(device)
    execution = choose_execution(config.run.execution, module, image_shape, device, task_steps)
    machinery = Machinery(execution, TaskChunks(config.run.task_chunk, device), processes)
    return ALGORITHMS[config.outer.algorithm](module, config, machinery)
