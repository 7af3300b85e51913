"""Whoever wants to follow a training."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torchreptile.core.config import Config
from torchreptile.models.execution.execution import Execution
from torchreptile.training.evaluation.results import Measured


class Observer(Protocol):
    """Whoever wants to follow a training: see :class:`torchreptile.training.progress_bars.LiveLine`."""

    def warned(self, message: str) -> None:
        """Something about the data, or about going on, should be known; before training begins."""

    def started(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        """Training begins, at outer step ``step``, computed as ``execution`` says."""

    def stepped(self, step: int, done: float, seconds: float) -> None:
        """An outer step is over; ``done`` is the share of the training, from 0 to 1."""

    def measured(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
        """Accuracy, or the error of functions, was measured on the named classes or tasks."""

    def finished(self, folder: Path, step: int, interrupted: bool) -> None:
        """Training ended, or was told to stop."""

    def failed(self) -> None:
        """Training ends with an exception."""


class Silent:
    """An observer that shows nothing."""

    def warned(self, message: str) -> None:
        """Nothing."""

    def started(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        """Nothing."""

    def stepped(self, step: int, done: float, seconds: float) -> None:
        """Nothing."""

    def measured(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
        """Nothing."""

    def finished(self, folder: Path, step: int, interrupted: bool) -> None:
        """Nothing."""

    def failed(self) -> None:
        """Nothing."""
