"""The few-shot learners, each in a file of its own."""

from __future__ import annotations

from functools import partial

import torch

from torchreptile.algorithms.anil import ANIL as ANIL
from torchreptile.algorithms.base import Adapted as Adapted
from torchreptile.algorithms.base import Algorithm as Algorithm
from torchreptile.algorithms.base import ExtraMetrics as ExtraMetrics
from torchreptile.algorithms.base import ExecutionContext as ExecutionContext
from torchreptile.algorithms.base import MetaGradient as MetaGradient
from torchreptile.algorithms.base import MetaState as MetaState
from torchreptile.algorithms.base import Predictions as Predictions
from torchreptile.algorithms.foml import FOML as FOML
from torchreptile.algorithms.fomaml import FirstOrderMAML as FirstOrderMAML
from torchreptile.algorithms.maml import MAML as MAML
from torchreptile.algorithms.mann import MANN as MANN
from torchreptile.algorithms.matching_networks import MatchingNetworks as MatchingNetworks
from torchreptile.algorithms.meta_lstm import MetaLSTM as MetaLSTM
from torchreptile.algorithms.meta_sgd import MetaSGD as MetaSGD
from torchreptile.algorithms.pretrained import Pretrained as Pretrained
from torchreptile.algorithms.prototypical_networks import PrototypicalNetworks as PrototypicalNetworks
from torchreptile.algorithms.reptile import Reptile as Reptile
from torchreptile.algorithms.scratch import Scratch as Scratch
from torchreptile.models.execution.task_chunks import TaskChunks
from torchreptile.core.config import Config, MethodConfig
from torchreptile.models.blueprint import Blueprint, Network, Shape
from torchreptile.models.mlp import MLP
from torchreptile.models.custom import check_network
from torchreptile.core.distributed.process_group import ALONE, Processes

ALGORITHMS: dict[str, type[Algorithm]] = {
    "reptile": Reptile,
    "foml": FOML,
    "maml": MAML,
    "fomaml": FirstOrderMAML,
    "anil": ANIL,
    "meta-sgd": MetaSGD,
    "matching": MatchingNetworks,
    "protonet": PrototypicalNetworks,
    "pretrained": Pretrained,
    "scratch": Scratch,
    "mann": MANN,
    "meta-lstm": MetaLSTM,
}

# Executions that an algorithm has for itself alone, and which setting gives them.
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
) -> Algorithm:
    """The algorithm that ``config`` names, for images or points of that shape.

    Args:
        config: all settings.
        image_shape: (C, H, W), or (inputs,) of points.
        device: where it will run.
        task_steps: about how many inner steps there are to do, which decides whether compiling pays.
        processes: with whom to share the tasks.
        network: makes the module; by default the one published with the algorithm.
        classes: of the images it will be trained on; 0 if it will not.
        targets: numbers to predict of every point; 0 where there are labels.
        execution: the one to take where ``config`` leaves it open.

    Raises:
        ConfigError: the network does not fit, or cannot be executed as the settings ask.
    """
    kind, method = ALGORITHMS[config.method.algorithm], config.method
    outputs, published = (targets, fitting(method)) if targets else (kind.outputs(config), kind.network(config))
    if network is not None:
        check_network(network, image_shape, outputs)
    blueprint = Blueprint.of(network or published, image_shape, outputs, device, classes)
    asked = config
    if execution and config.run.execution == "auto":
        asked = config.replace(execution=ASKED_AS.get(execution, execution))
    chosen = kind.choose_execution(asked, blueprint, device, task_steps)
    context = ExecutionContext(chosen, TaskChunks(config.run.task_chunk, device), processes)
    return kind(blueprint, config, context)


def fitting(method: MethodConfig) -> Network:
    """The network for functions, the same for all algorithms."""
    return partial(MLP, units=method.mlp_units, layers=method.mlp_layers, activation=method.mlp_activation)
