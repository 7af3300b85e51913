"""Weights & Biases."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any, final

from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, first_line
from torchreptile.core.files import write_text
from torchreptile.training.loggers.base import Logger, remembered_id


@final
class WandbLogger(Logger):
    """Callback that logs settings and the numbers of metrics.jsonl to Weights & Biases.

    Needs ``pip install 'torchreptile[wandb]'``, and ``wandb login`` or ``WANDB_MODE=offline``. A resumed run continues
    under the same id, which ``wandb/id`` of the run folder holds.

    Example:
        >>> import torchreptile as tr
        >>> tr.train(config, "runs/mine", callbacks=[tr.WandbLogger("few-shot")])  # doctest: +SKIP
    """

    title, package = "Weights & Biases", "wandb"

    def __init__(self, project: str = "torchreptile", name: str = "") -> None:
        """Log to a project; other settings are those of the ``WANDB_*`` environment variables.

        Args:
            project: the project's name.
            name: the run's name; by default that of the run folder.

        Raises:
            ConfigError: wandb is not installed.
        """
        super().__init__()
        self._project, self._name = project, name
        self._run: Any = None

    def open(self, folder: Path, config: Config, step: int) -> None:
        """Start a run, or continue the one with the id that the run folder holds."""
        wandb = self.module()
        file = folder / "wandb" / "id"
        file.parent.mkdir(exist_ok=True)
        name = remembered_id(file) or secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=self._project,
                name=self._name or folder.name,
                id=name,
                resume="allow" if step else None,
                dir=str(folder),
                config=json.loads(config.to_json()),
            )
        except wandb.Error as error:
            raise ConfigError(
                f"Weights & Biases cannot be used ({first_line(error)}); run wandb login, or set WANDB_MODE=offline"
            ) from error
        write_text(file, name + "\n")

    def write(self, values: dict[str, float], step: int) -> None:
        """Log all numbers at once."""
        self._run.log(values, step=step)

    def close(self, failed: bool) -> None:
        """Finish the run."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))
            self._run = None
