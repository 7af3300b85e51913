"""An evaluation's result with everything it depends on, to and from JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.data.splits import resolve_scheme
from torchreptile.training.evaluation.published import FIGURE_ONLY, Published, published_measure
from torchreptile.training.evaluation.results import MODES as MODES
from torchreptile.training.evaluation.results import Accuracy as Accuracy
from torchreptile.training.evaluation.results import Fit as Fit
from torchreptile.training.evaluation.results import Measured as Measured
from torchreptile.training.evaluation.results import Result as Result
from torchreptile.training.evaluation.results import measured_from


@dataclass(frozen=True)
class Evaluation:
    """A measured result with everything that must stand beside it.

    Attributes:
        source: which weights.
        step: outer steps they were trained for.
        trained_on: the data set they were trained on; published numbers were trained on the one they are measured on.
        split: train, val or test.
        config: the settings of this evaluation (task and evaluation part) and of the training.
        result: the accuracies, or errors.
        seed: of episodes and mini-batches.
        seconds: wall time.
        environment: command, versions, hardware.
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

    @property
    def file_name(self) -> str:
        """Where a run folder keeps it; only a repetition with the same settings, seed and weights replaces it."""
        task = self.config.task
        same = hashlib.sha256(f"{self.config.to_json()} {self.seed} {self.step}".encode()).hexdigest()[:8]
        kind = f"{task.shots}shot" + ("" if task.regression else f"-{task.way}way")
        return f"eval-{task.title}-{self.split}-{kind}-{same}.json"

    @property
    def on_training_classes(self) -> bool:
        """Whether it was measured on the classes or tasks that the weights were trained on."""
        task = self.config.task
        return self.split == "train" and self.trained_on == task.title and not task.drawn

    def is_of(self, config: Config) -> bool:
        """Whether those are its settings, of training and measurement, on however many episodes."""
        scheme = resolve_scheme(config.task.dataset, config.task.split_scheme)  # an evaluation names it
        return not self.config.departure(config.replace(split_scheme=scheme))

    def published(self, mode: str) -> Published | None:
        """What was published for this cell, for test classes; ``mode`` is one of MODES or a further measure."""
        if self.split != "test":
            return None
        task = self.config.task
        return published_measure(self.config.variant, task.dataset, task.way, task.shots, mode)

    def beside(self, measure: str) -> str:
        """The same in words; sine waves were published as curves."""
        waves = self.split == "test" and self.config.task.drawn
        return FIGURE_ONLY if waves else str(self.published(measure) or "-")

    def to_json(self) -> str:
        """Everything, as indented JSON; accuracies from 0 to 1, published ones in percent."""
        content = dataclasses.asdict(self)
        content["adaptation"] = self.config.adaptation
        content["published_percent"] = {
            name: cell.accuracy if (cell := self.published(name)) else None for name in self.result.rows()
        }
        return json.dumps(content, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """What :meth:`to_json` wrote.

        Raises:
            RunError: it is something else.
        """
        try:
            content = json.loads(text)
            content.pop("published_percent")
            content.pop("adaptation", None)
            content["config"] = Config.from_json(json.dumps(content["config"]))
            content["result"] = measured_from(content["result"])
            return cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise RunError(f"not an evaluation: {error}") from error
