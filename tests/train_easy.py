"""Train on the easy classes in a separate process, to be killed by a test.

python tests/train_easy.py {train,resume} FOLDER OUTER_STEPS
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
torch.set_num_threads(1)

from tests.easy import easy_splits, killable_config  # noqa: E402
from torchreptile.core.config import Config  # noqa: E402
from torchreptile.models.execution.execution import Execution  # noqa: E402
from torchreptile.training import setup  # noqa: E402
from torchreptile.training import train as training  # noqa: E402
from torchreptile.training.callbacks import Callback  # noqa: E402
from torchreptile.training.evaluation import evaluate as evaluation  # noqa: E402


class Announcer(Callback):
    """Says when training has begun, so that the killer need not guess."""

    def on_start(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        print("started", flush=True)


if __name__ == "__main__":
    setup.load_splits = lambda task: easy_splits()
    evaluation.EPISODES_PER_DRAW = 4
    command, folder, outer_steps = sys.argv[1:]
    if command == "train":
        training.train(killable_config(int(outer_steps)), folder, [Announcer()])
    else:
        training.resume(folder, [Announcer()])
