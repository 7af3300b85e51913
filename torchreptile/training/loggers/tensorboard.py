"""TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from torchreptile.core.config import Config
from torchreptile.training.loggers.base import Logger


@final
class TensorBoardLogger(Logger):
    """Callback that logs the numbers of metrics.jsonl for TensorBoard.

    Event files go to ``tensorboard`` in the run folder, unless another folder is given. Needs
    ``pip install 'torchreptile[tensorboard]'``. Of a resumed run, what was logged after the checkpoint is
    replaced.

    Example:
        >>> import torchreptile as tr
        >>> tr.train(config, "runs/mine", callbacks=[tr.TensorBoardLogger()])  # doctest: +SKIP
    """

    title, package = "TensorBoard", "tensorboard"

    def __init__(self, folder: Path | str | None = None) -> None:
        """``folder``: where event files go.

        Raises:
            ConfigError: TensorBoard is not installed.
        """
        super().__init__()
        self._folder = folder
        self._writer: Any = None

    def open(self, folder: Path, config: Config, step: int) -> None:
        """Open an event file that replaces whatever was logged after ``step``."""
        from torch.utils.tensorboard import SummaryWriter

        where = folder / "tensorboard" if self._folder is None else Path(self._folder)
        self._writer = SummaryWriter(str(where), purge_step=step + 1)

    def write(self, values: dict[str, float], step: int) -> None:
        """Add a scalar for every number."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, failed: bool) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
