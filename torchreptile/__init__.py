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
    from torchreptile.classifier import FewShotClassifier as FewShotClassifier
    from torchreptile.config import Config as Config
    from torchreptile.data.store import ImageStore as ImageStore
    from torchreptile.episodes import Episodes as Episodes
    from torchreptile.episodes import EpisodeSampler as EpisodeSampler
    from torchreptile.evaluation import evaluate as evaluate
    from torchreptile.presets import preset as preset
    from torchreptile.regressor import FewShotRegressor as FewShotRegressor
    from torchreptile.reports import report as report
    from torchreptile.training import resume as resume
    from torchreptile.training import train as train

__version__ = "0.1.0"

_HOMES = {
    "Config": "torchreptile.config",
    "Episodes": "torchreptile.episodes",
    "EpisodeSampler": "torchreptile.episodes",
    "FewShotClassifier": "torchreptile.classifier",
    "FewShotRegressor": "torchreptile.regressor",
    "ImageStore": "torchreptile.data.store",
    "evaluate": "torchreptile.evaluation",
    "preset": "torchreptile.presets",
    "report": "torchreptile.reports",
    "resume": "torchreptile.training",
    "train": "torchreptile.training",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module torchreptile has no attribute {name}")
    return getattr(import_module(_HOMES[name]), name)
