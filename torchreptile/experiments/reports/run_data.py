"""Reading and checking a run folder's files, for reports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.errors import RunError
from torchreptile.core.files import read_text
from torchreptile.training.checkpoint import Checkpoint, load_checkpoint
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.run_folder import RunFolder

SPLITS = {"test": "test", "val": "validation", "train": "training"}
"""Splits in the order of tables, with the words for their classes."""


@dataclass(frozen=True)
class Recorded:
    """The content of a run folder.

    Attributes:
        name: name of the folder.
        folder: the folder.
        config: settings of the run.
        environment: versions, hardware, command.
        metrics: the lines of metrics.jsonl.
        evaluations: the content of every eval-*.json, test classes first.
        step: outer steps done.
        seconds: training time at the last checkpoint.
    """

    name: str
    folder: RunFolder
    config: Config
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    evaluations: list[Evaluation]
    step: int
    seconds: float


def read_run(path: Path) -> Recorded:
    """Read a run folder; the run may still be in training.

    Raises:
        RunError: ``path`` is not a run folder, or one of its files is missing or damaged.
    """
    folder = RunFolder(path)
    config, environment, last = folder.config(), folder.environment(), load_checkpoint(folder.last)
    if departure := config.departure(last.config):
        raise RunError(f"{folder.config_file}: not the settings of {folder.last.name} ({departure})")
    config = last.config.computed_as(config)  # the rest of them is known from the checkpoint, which has a checksum
    metrics = _metrics(folder, last)
    step = max([last.step, *(line["step"] for line in metrics)])  # metrics may be ahead of the last checkpoint
    evaluations = _evaluations(folder, config)
    return Recorded(path.resolve().name, folder, config, environment, metrics, evaluations, step, last.seconds)


def _metrics(folder: RunFolder, last: Checkpoint) -> list[dict[str, Any]]:
    """Read and check metrics.jsonl."""
    try:
        lines = folder.metrics(last)
    except OSError as error:
        raise RunError(f"{folder.metrics_file}: missing or damaged ({error})") from error
    except ValueError as error:
        raise RunError(f"{folder.metrics_file}: {error}") from error
    for number, line in enumerate(lines, 1):
        if type(line.get("step")) is not int or "loss" not in line:
            raise RunError(f"{folder.metrics_file}: line {number} is damaged, it has no step and loss")
    return lines


def _evaluations(folder: RunFolder, config: Config) -> list[Evaluation]:
    """Read every eval-*.json, which must be of this run: test classes first, then by file name."""
    found = []
    for file in sorted(folder.path.glob("eval-*.json")):
        try:
            evaluation = Evaluation.from_json(read_text(file))
            if (evaluation.config.method, evaluation.config.run.seed) != (config.method, config.run.seed):
                raise RunError("it is of another run: its algorithm or seed differs")
            found.append(evaluation)
        except (OSError, RunError, ValueError) as error:
            raise RunError(f"{file}: damaged ({error}); measure again with reptile evaluate") from error
    return sorted(found, key=lambda evaluation: list(SPLITS).index(evaluation.split))
