"""The outer loop, iterated over by the user."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import torchreptile as tr
from tests.easy import small_config
from tests.runs import assert_same_run
from torchreptile.core.errors import ConfigError
from torchreptile.data.splits import Splits
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.run_folder import RunFolder


def test_iterating_is_the_same_training(tmp_path: Path, easy_data: Splits) -> None:
    tr.train(small_config(outer_steps=4), tmp_path / "whole")
    with tr.training_loop(small_config(outer_steps=4), tmp_path / "run") as trainer:
        assert trainer.result is None
        steps = [(step.step, step.step_size, float(step.loss)) for step in trainer]
        last = trainer.result
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert [step for step, _, _ in steps] == [1, 2, 3, 4]
    assert [size for _, size, _ in steps] == [1.0, 0.75, 0.5, 0.25]
    assert all(0 < loss < 10 for _, _, loss in steps)
    assert last is not None
    assert (last.step, last.interrupted) == (4, False)


def test_the_state_is_that_of_the_step(tmp_path: Path, easy_data: Splits) -> None:
    with tr.training_loop(small_config(outer_steps=2), tmp_path / "run") as trainer:
        states = [step.state for step in trainer]
    assert not torch.equal(states[0].params["head.weight"], states[1].params["head.weight"])
    saved = load_checkpoint(tmp_path / "run" / "last.pt").state.params["head.weight"]
    assert torch.equal(states[1].params["head.weight"], saved)


def test_break_saves_and_iterating_again_continues(tmp_path: Path, easy_data: Splits) -> None:
    tr.train(small_config(), tmp_path / "whole")
    with tr.training_loop(small_config(), tmp_path / "run") as trainer:
        for step in trainer:
            if step.step == 3:
                break
        assert trainer.result is not None
        assert (trainer.result.step, trainer.result.interrupted) == (3, True)
        assert load_checkpoint(tmp_path / "run" / "last.pt").step == 3
        assert [step.step for step in trainer] == [4, 5, 6]
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_an_error_in_the_loop_leaves_a_run_that_can_be_resumed(tmp_path: Path, easy_data: Splits) -> None:
    tr.train(small_config(), tmp_path / "whole")

    def fail_at_5() -> None:
        with tr.training_loop(small_config(), tmp_path / "run") as trainer:
            for step in trainer:
                assert step.step < 5, "of the user's own"

    with pytest.raises(AssertionError, match="of the user's own"):
        fail_at_5()
    with tr.resumed_loop(tmp_path / "run") as trainer:
        assert [step.step for step in trainer] == [6]
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_metrics_as_a_data_frame(tmp_path: Path, easy_data: Splits) -> None:
    pytest.importorskip("pandas", reason="not a dependency")
    frame = tr.train(small_config(monitor_every=2), tmp_path / "run").metrics_frame()
    lines = RunFolder(tmp_path / "run").metrics()
    assert list(frame.index) == [2, 4, 6]
    assert list(frame["val_inductive"]) == [line["val_inductive"] for line in lines]
    assert set(frame.columns) == set(lines[0]) - {"step"}


def test_without_pandas_there_is_no_data_frame(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchreptile.core.data_frame.find_spec", lambda name: None)
    run = tr.train(small_config(outer_steps=1), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^pandas is not installed; pip install pandas$"):
        run.metrics_frame()
