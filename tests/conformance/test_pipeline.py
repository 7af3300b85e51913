"""Every algorithm through the whole package: stopped, resumed, measured, written as weights, reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.easy import MINIATURES, small_config
from tests.runs import assert_same_run, stop_at
from torchreptile.core.config.algorithm_table import algorithm_names, algorithm_row
from torchreptile.data.splits import Splits
from torchreptile.experiments.reports import report
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.train import resume, train
from torchreptile.training.weights import load_weights, save_weights


@pytest.mark.parametrize("algorithm", algorithm_names())
def test_stopped_resumed_measured_written_and_reported(tmp_path: Path, easy_data: Splits, algorithm: str) -> None:
    config = small_config(algorithm=algorithm, outer_steps=4, **MINIATURES.get(algorithm, {}))
    train(config, tmp_path / "uninterrupted")
    assert train(config, tmp_path / "run", stop_at(3)).interrupted
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")

    loaded, weights = load_weights(tmp_path / "run"), tmp_path / "weights.safetensors"
    save_weights(loaded, weights, {})
    again = load_weights(weights)
    assert again.state.params.keys() == loaded.state.params.keys()
    assert again.state.averages.keys() == loaded.state.averages.keys()
    for expected, written in ((loaded.state.params, again.state.params), (loaded.state.averages, again.state.averages)):
        assert all(torch.equal(tensor, written[name]) for name, tensor in expected.items())

    measured = evaluate(tmp_path / "run", device="cpu")
    assert evaluate(weights, device="cpu").result == measured.result  # which the averages have a part in
    assert Evaluation.from_json(measured.to_json()).result == measured.result
    assert ("transductive" in measured.result.measures()) == algorithm_row(algorithm).transductive
    page = next(file for file in report(tmp_path / "run") if file.suffix == ".html").read_text()
    assert str(measured.result.inductive) in page
