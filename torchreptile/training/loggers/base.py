"""What the loggers share."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, final

from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.models.execution.execution import Execution
from torchreptile.training.callbacks import Metrics, OutputCallback


class Logger(OutputCallback):
    """Base class of loggers: opens a log when training starts, writes numbers to it, closes it in any case.

    Attributes:
        title: the product's name.
        package: the module it needs; the extra of torchreptile that installs it has the same name.
    """

    title: ClassVar[str]
    package: ClassVar[str]

    def __init__(self) -> None:
        """Find out, before anything is written, whether the package is installed.

        Raises:
            ConfigError: it is not.
        """
        if find_spec(self.package) is None:
            raise ConfigError(f"{self.title} is not installed; pip install 'torchreptile[{self.package}]'")

    def module(self) -> Any:
        """Import the package, which takes a while."""
        return import_module(self.package)

    def open(self, folder: Path, config: Config, step: int) -> None:
        """Open the log of a run that has made ``step`` outer steps; of a resumed one, continue its log."""
        raise NotImplementedError

    def write(self, values: dict[str, float], step: int) -> None:
        """Log numbers of one outer step, by name."""
        raise NotImplementedError

    def close(self, failed: bool) -> None:
        """Close the log, if it is open."""
        raise NotImplementedError

    @final
    def on_start(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        """Open the log."""
        self.open(folder, config, step)

    @final
    def on_metrics(self, metrics: Metrics) -> None:
        """Write the numbers of a line of metrics.jsonl under their names there."""
        numbers = {name: float(value) for name, value in metrics.items() if not isinstance(value, str)}
        step = int(numbers.pop("step"))
        self.write(numbers, step)

    @final
    def on_end(self, folder: Path, step: int, interrupted: bool) -> None:
        """Close the log."""
        self.close(failed=False)

    @final
    def on_exception(self, error: BaseException) -> None:
        """Close the log."""
        self.close(failed=True)


def remembered_id(file: Path) -> str:
    """Return the run's name in another service, stored in a file of the run folder; empty before it has one."""
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
