"""Few-shot meta-learning in PyTorch: the Reptile paper's experiments, right, fast and practical.

    import torchreptile as tr

    run = tr.train(tr.preset("glyphs-1shot-5way").replace(max_minutes=2), out="runs/mine")
    print(tr.evaluate("runs/mine", episodes=1000).result)

The names below are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchreptile.inference.classifier import FewShotClassifier as FewShotClassifier
    from torchreptile.core.config import Config as Config
    from torchreptile.training.callbacks import Callback as Callback
    from torchreptile.training.loggers.mlflow import MLflowLogger as MLflowLogger
    from torchreptile.training.loggers.tensorboard import TensorBoardLogger as TensorBoardLogger
    from torchreptile.training.loggers.wandb import WandbLogger as WandbLogger
    from torchreptile.training.progress_bars import ProgressBar as ProgressBar
    from torchreptile.training.train import resumed_loop as resumed_loop
    from torchreptile.training.train import training_loop as training_loop
    from torchreptile.data.image_store import ImageStore as ImageStore
    from torchreptile.data.episodes import Episodes as Episodes
    from torchreptile.data.samplers import EpisodeSampler as EpisodeSampler
    from torchreptile.training.evaluation.evaluate import evaluate as evaluate
    from torchreptile.core.config.presets import preset as preset
    from torchreptile.inference.regressor import FewShotRegressor as FewShotRegressor
    from torchreptile.experiments.reports import report as report
    from torchreptile.training.train import resume as resume
    from torchreptile.training.train import train as train

from torchreptile.core.version import __version__ as __version__

_HOMES = {
    "Algorithm": "torchreptile.algorithms.base",
    "AlgorithmRow": "torchreptile.core.config",
    "AlgorithmSettings": "torchreptile.core.config",
    "Callback": "torchreptile.training.callbacks",
    "Config": "torchreptile.core.config",
    "Episodes": "torchreptile.data.episodes",
    "EpisodeSampler": "torchreptile.data.samplers",
    "FewShotClassifier": "torchreptile.inference.classifier",
    "FewShotRegressor": "torchreptile.inference.regressor",
    "ImageStore": "torchreptile.data.image_store",
    "MLflowLogger": "torchreptile.training.loggers.mlflow",
    "ProgressBar": "torchreptile.training.progress_bars",
    "TensorBoardLogger": "torchreptile.training.loggers.tensorboard",
    "WandbLogger": "torchreptile.training.loggers.wandb",
    "evaluate": "torchreptile.training.evaluation.evaluate",
    "preset": "torchreptile.core.config.presets",
    "report": "torchreptile.experiments.reports",
    "resume": "torchreptile.training.train",
    "resumed_loop": "torchreptile.training.train",
    "train": "torchreptile.training.train",
    "training_loop": "torchreptile.training.train",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module torchreptile has no attribute {name}")
    return getattr(import_module(_HOMES[name]), name)
