"""The few-shot learners, each in a file of its own."""

from __future__ import annotations

import torch
from torch import nn

from torchreptile.algorithms.base import Algorithm as Algorithm
from torchreptile.algorithms.base import MetaGradient as MetaGradient
from torchreptile.algorithms.base import MetaState as MetaState
from torchreptile.algorithms.base import Predictions as Predictions
from torchreptile.algorithms.foml import FirstOrderMAML as FirstOrderMAML
from torchreptile.algorithms.reptile import Reptile as Reptile
from torchreptile.config import Config
from torchreptile.inner import choose_execution

ALGORITHMS: dict[str, type[Reptile]] = {"reptile": Reptile, "foml": FirstOrderMAML}


def build_algorithm(module: nn.Module, config: Config, device: torch.device, task_steps: float = 0) -> Algorithm:
    """The algorithm that ``config`` names, for ``module``'s form of network and about so many inner
    steps, which decides whether compiling pays."""
    execution = choose_execution(config.run.execution, module, device, task_steps)
    return ALGORITHMS[config.outer.algorithm](module, config, execution)
