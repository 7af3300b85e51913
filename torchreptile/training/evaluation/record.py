"""The record of an evaluation: its result with everything the result depends on, as JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.core.json_text import json_text
from torchreptile.core.sealed_json import parse_json, require_numbers, sealed, unsealed
from torchreptile.data.splits import SPLITS, resolve_scheme
from torchreptile.training.evaluation.episode_table import EpisodeTable
from torchreptile.training.evaluation.html_table import html_table
from torchreptile.training.evaluation.labels import label_of
from torchreptile.training.evaluation.published import FIGURE_ONLY, Published, published_measure
from torchreptile.training.evaluation.results import Measured, measured_from


@dataclass(frozen=True)
class Evaluation:
    """A result with everything it depends on.

    Attributes:
        source: name of the weights.
        step: outer steps that the weights were trained for.
        trained_on: data set of the training.
        split: train, val or test.
        config: settings of the training, with the task and evaluation settings of this evaluation.
        result: accuracies from 0 to 1, or errors.
        seed: seed of episodes and inner batches.
        seconds: wall time.
        environment: command, versions, hardware and threads, and the execution and sizes of chunks in use.
        episodes: every episode; None where the evaluation was read from a file, which does not hold them.
    """

    source: str
    step: int
    trained_on: str
    split: str
    config: Config
    result: Measured
    seed: int
    seconds: float
    environment: dict[str, Any]
    episodes: EpisodeTable | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        """Return what was evaluated on what, and the result, on one line."""
        return f"{self._conditions}: {self.result}"

    def __repr__(self) -> str:
        """Return the result with its conditions on one line, without settings and environment."""
        return f"Evaluation({self})"

    def _repr_html_(self) -> str:
        """Return a table for Jupyter."""
        rows = {label_of(name).name: its for name, its in self.result.rows().items() if its is not None}
        return html_table(rows, self._conditions)

    @property
    def _conditions(self) -> str:
        """What was evaluated on what."""
        task = self.config.task
        on = f"{self.split} {task.members} of {task.title}, {task.kind}"
        return f"{self.source} on {on}, {self.result.episodes:,} episodes"

    def episodes_frame(self) -> Any:
        """Return every episode as a pandas DataFrame: see :class:`EpisodeTable` for its rows and columns.

        Raises:
            ConfigError: pandas is not installed.
            RunError: the evaluation was read from a file, which does not hold the episodes.
        """
        if self.episodes is None:
            raise RunError(f"the episodes of {self.source} are not stored in its file; evaluate it again")
        return self.episodes.frame()

    @property
    def file_name(self) -> str:
        """Name of the file in the run folder; a repetition with equal settings, seed and weights replaces it."""
        task = self.config.task
        digest = hashlib.sha256(f"{self.config.to_json()} {self.seed} {self.step}".encode()).hexdigest()[:8]
        kind = f"{task.shots}shot" + ("" if task.regression else f"-{task.way}way")
        return f"eval-{task.title}-{self.split}-{kind}-{digest}.json"

    @property
    def on_training_classes(self) -> bool:
        """Whether the classes or tasks are those that the weights were trained on."""
        task = self.config.task
        return self.split == "train" and self.trained_on == task.title and not task.drawn

    def is_of(self, config: Config) -> bool:
        """Return whether training and evaluation settings equal those of ``config``, but for the number of episodes."""
        scheme = resolve_scheme(config.task.dataset, config.task.split_scheme)  # an evaluation names it
        return not self.config.departure(config.replace(split_scheme=scheme))

    def published(self, measure: str) -> Published | None:
        """Return the published value for test classes; ``measure`` is one of ``MODES`` or an extra metric."""
        if self.split != "test":
            return None
        task = self.config.task
        return published_measure(self.config.variant, task.dataset, task.way, task.shots, measure)

    def published_text(self, measure: str) -> str:
        """Return the published value as text: ``-`` if there is none, ``figure only`` for sine waves."""
        waves = self.split == "test" and self.config.task.drawn
        return FIGURE_ONLY if waves else str(self.published(measure) or "-")

    def to_json(self) -> str:
        """Return everything as indented JSON with a checksum; accuracies are from 0 to 1, published ones in percent.

        An error that is not a finite number is null, and ``diverged`` counts the episodes with such predictions.
        """
        content = dataclasses.asdict(dataclasses.replace(self, episodes=None))
        del content["episodes"]
        content["adaptation"] = self.config.adaptation
        content["published_percent"] = {
            name: cell.accuracy if (cell := self.published(name)) else None for name in self.result.rows()
        }
        return json_text(sealed(content), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Return the evaluation that :meth:`to_json` wrote, its checksum, types and ranges checked.

        Raises:
            RunError: the text is not an evaluation, or has changed since it was written.
        """
        try:
            content = unsealed(parse_json(text))
            content.pop("published_percent")
            content.pop("adaptation", None)
            content["config"] = Config.from_json(json.dumps(content["config"]))
            content["result"] = measured_from(content["result"])
            found = cls(**content | {"episodes": None})
            found._require_types()
            return found
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise RunError(f"not an evaluation: {error}") from error

    def _require_types(self) -> None:
        """Refuse what was read from a file with values of wrong types, or out of their range."""
        require_numbers({"step": self.step, "seed": self.seed}, whole=True)
        require_numbers({"seconds": self.seconds})
        if self.split not in SPLITS or not isinstance(self.environment, dict):
            raise ValueError("its split or its environment cannot be")
        if not isinstance(self.source, str) or not isinstance(self.trained_on, str):
            raise TypeError("its weights or their data have no name")
