"""A callback: stop a training once validation accuracy has not improved for some measurements.

python examples/callback.py
"""

from __future__ import annotations

import signal
from pathlib import Path

import torchreptile as tr
from torchreptile.training.evaluation.results import Measured


class EarlyStopping(tr.Callback):
    """Stops a training, which can be resumed, after ``patience`` measurements without a new best score."""

    def __init__(self, patience: int = 5) -> None:
        self.patience, self.best, self.worse = patience, float("-inf"), 0

    def on_evaluation(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
        """Compare the inductive accuracy with the best one so far."""
        score = measured["val"].score(transductive=False)
        self.worse = 0 if score > self.best else self.worse + 1
        self.best = max(score, self.best)
        if self.worse >= self.patience:
            signal.raise_signal(signal.SIGINT)  # as Ctrl-C: the training saves and returns


def main(out: Path | str = "runs/early-stopping") -> int:
    """Train with it; return the outer steps made."""
    config = tr.preset("glyphs-1shot-5way").replace(outer_steps=2000, monitor_every=10, monitor_episodes=50)
    run = tr.train(config, out, callbacks=[EarlyStopping(patience=3), tr.ProgressBar()])
    print(f"{'stopped' if run.interrupted else 'finished'} after {run.step} outer steps: {run.measured['val']}")
    return run.step


if __name__ == "__main__":
    main()
