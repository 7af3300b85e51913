"""Loggers: each has the numbers of metrics.jsonl, of both sessions of a run that was stopped and resumed."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import torchreptile as tr
from tests.easy import small_config
from tests.runs import stop_at
from torchreptile.core.errors import ConfigError
from torchreptile.data.splits import Splits
from torchreptile.training.callbacks import Callback
from torchreptile.training.loggers import LOGGERS, loggers
from torchreptile.training.run_folder import RunFolder


def train_in_two_sessions(folder: Path, logger: type[Callback]) -> dict[str, list[float]]:
    """Stop after the second of four steps, and resume; every number of metrics.jsonl by name."""
    tr.train(small_config(outer_steps=4, monitor_every=1), folder, [*stop_at(2), logger()])
    tr.resume(folder, [logger()])
    lines = RunFolder(folder).metrics()
    assert [line.pop("step") for line in lines] == [1, 2, 3, 4]
    return {name: [line[name] for line in lines] for name in lines[0]}


def test_tensorboard(tmp_path: Path, easy_data: Splits) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="an extra")
    expected = train_in_two_sessions(tmp_path / "run", tr.TensorBoardLogger)
    events = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, values in expected.items():
        scalars = events.Scalars(name)
        assert [point.step for point in scalars] == [1, 2, 3, 4]
        assert [point.value for point in scalars] == pytest.approx(values)


def records(content: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format after a header of 7 bytes: checksum (4), length (2), kind (1), data."""
    block, at, data = 2**15, 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:  # the rest of a block that has no room for a header
            at += block - at % block
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        data += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last part
            yield data
            data = b""


def test_wandb_offline(tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="an extra")
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2", reason="wandb has another format of files")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    expected = train_in_two_sessions(tmp_path / "run", tr.WandbLogger)
    wandb.teardown()
    logged: dict[int, dict[str, float]] = {}
    ids, configs = set(), []
    for file in sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")):
        for data in records(file.read_bytes()):
            record = pb.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
                configs.append({item.key: item.value_json for item in record.run.config.update})
            if record.WhichOneof("record_type") == "history":
                values = {item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
                logged[int(values["_step"])] = values
    assert ids == {(tmp_path / "run" / "wandb" / "id").read_text().strip()}
    assert all("task" in config for config in configs)
    assert sorted(logged) == [1, 2, 3, 4]
    for name, values in expected.items():
        assert [logged[step][name] for step in (1, 2, 3, 4)] == pytest.approx(values)


def test_mlflow_in_a_folder(tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow: Any = pytest.importorskip("mlflow", reason="an extra")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    expected = train_in_two_sessions(tmp_path / "run", tr.MLflowLogger)
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("torchreptile").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert run.data.params["task.way"] == "3"
    for name, values in expected.items():
        points = client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in points] == [1, 2, 3, 4]
        assert [point.value for point in points] == pytest.approx(values)


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_package_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "torchreptile.training.loggers.base.find_spec", lambda module: None if module == name else find(module)
    )
    with pytest.raises(ConfigError, match=rf"is not installed; pip install 'torchreptile\[{name}\]'$"):
        loggers(name)


def test_names_of_loggers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchreptile.training.loggers.base.find_spec", lambda module: True)
    assert loggers("") == []
    both = loggers("tensorboard, wandb,tensorboard")
    assert [type(logger) for logger in both] == [tr.TensorBoardLogger, tr.WandbLogger]
    with pytest.raises(ConfigError, match="log is tensorbord; each name must be one of tensorboard, wandb, mlflow"):
        loggers("tensorbord")
