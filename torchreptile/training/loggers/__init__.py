"""Callbacks that log the numbers of metrics.jsonl elsewhere: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

from torchreptile.core.errors import ConfigError
from torchreptile.training.callbacks import Callback
from torchreptile.training.loggers.mlflow import MLflowLogger as MLflowLogger
from torchreptile.training.loggers.tensorboard import TensorBoardLogger as TensorBoardLogger
from torchreptile.training.loggers.wandb import WandbLogger as WandbLogger

LOGGERS: dict[str, type[Callback]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "mlflow": MLflowLogger,
}


def loggers(names: str) -> list[Callback]:
    """Return the loggers that a comma-separated list names, such as ``tensorboard,wandb``; none for an empty one.

    Raises:
        ConfigError: an unknown name, or a package that is not installed.
    """
    wanted = [name.strip() for name in names.split(",")] if names else []
    for name in wanted:
        if name not in LOGGERS:
            raise ConfigError(f"log is {names}; each name must be one of {', '.join(LOGGERS)}")
    return [LOGGERS[name]() for name in dict.fromkeys(wanted)]
