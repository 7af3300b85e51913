"""MLflow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, final

from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, first_line
from torchreptile.core.files import write_text
from torchreptile.training.loggers.base import Logger, remembered_id

ID_FILE = "mlflow-run-id"  # in the run folder


@final
class MLflowLogger(Logger):
    """Callback that logs settings and the numbers of metrics.jsonl to MLflow.

    Needs ``pip install 'torchreptile[mlflow]'``. A resumed run continues under the same id, which ``mlflow-run-id`` of
    the run folder holds.

    Example:
        >>> import torchreptile as tr
        >>> tr.train(config, "runs/mine", callbacks=[tr.MLflowLogger()])  # doctest: +SKIP
    """

    title, package = "MLflow", "mlflow"

    def __init__(self, tracking_uri: str = "", experiment: str = "torchreptile") -> None:
        """Log to a tracking server or a folder.

        Args:
            tracking_uri: a server or a ``file:`` URI of a folder; by default ``MLFLOW_TRACKING_URI``, else a folder
                ``mlruns`` next to the run folder.
            experiment: the experiment's name; it is made if there is none.

        Raises:
            ConfigError: mlflow is not installed.
        """
        super().__init__()
        self._uri, self._experiment = tracking_uri, experiment
        self._client: Any = None
        self._run_id = ""

    def open(self, folder: Path, config: Config, step: int) -> None:
        """Create a run, or continue the one with the id that the run folder holds."""
        uri = self._uri or os.environ.get("MLFLOW_TRACKING_URI") or (folder.absolute().parent / "mlruns").as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 asks whether a folder is really meant
        mlflow = self.module()
        try:
            self._open(mlflow.MlflowClient(tracking_uri=uri), folder, config)
        except mlflow.exceptions.MlflowException as error:
            raise ConfigError(f"MLflow cannot log to {uri} ({first_line(error)}); set MLFLOW_TRACKING_URI") from error

    def _open(self, client: Any, folder: Path, config: Config) -> None:
        file = folder / ID_FILE
        self._run_id = remembered_id(file)
        if not self._run_id:
            found = client.get_experiment_by_name(self._experiment)
            experiment = found.experiment_id if found else client.create_experiment(self._experiment)
            self._run_id = client.create_run(experiment, run_name=folder.name).info.run_id
            for name, value in _flat(json.loads(config.to_json())).items():
                client.log_param(self._run_id, name, value)
            write_text(file, self._run_id + "\n")
        client.update_run(self._run_id, status="RUNNING")
        self._client = client

    def write(self, values: dict[str, float], step: int) -> None:
        """Log each number."""
        for name, value in values.items():
            self._client.log_metric(self._run_id, name, value, step=step)

    def close(self, failed: bool) -> None:
        """Set the run's status."""
        if self._client is not None:
            self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")
            self._client = None


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names.

    >>> _flat({"task": {"way": 5}})
    {'task.way': 5}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
