"""Trainings that start from other weights: what is taken over, what must fit, and what would leak."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.easy import small_config
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.train import train
from torchreptile.training.trainer import Run
from torchreptile.training.weights import MetaWeights, load_weights, save_weights

SMALL = {"dataset": "glyphs", "monitor_every": 100, "monitor_episodes": 2, "outer_steps": 2, "execution": "grouped"}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(small_config(**SMALL), tmp_path_factory.mktemp("before") / "run", callbacks=[])


def started(config_changes: dict[str, object], out: Path) -> MetaWeights:
    """The weights before the first step: an outer step size of 0 does not move them."""
    still = {"outer_step_size": 0.0, "outer_steps": 1}
    return load_weights(train(small_config(**(SMALL | still | config_changes)), out, callbacks=[]).folder)


def test_weights_and_second_moment_are_taken_over(before: Run, tmp_path: Path) -> None:
    start = started({"weights": str(before.folder)}, tmp_path / "run")
    assert all(torch.equal(p, before.state.params[name]) for name, p in start.state.params.items())
    assert start.state.inner.steps > before.state.inner.steps > 0
    assert start.config.outer.weights == str(before.folder)


def test_without_weights_they_are_drawn(before: Run, tmp_path: Path) -> None:
    start = started({}, tmp_path / "run")
    assert not torch.equal(start.state.params["head.weight"], before.state.params["head.weight"])


def test_a_head_for_more_classes(before: Run, tmp_path: Path) -> None:
    start = started({"weights": str(before.folder), "way": 4}, tmp_path / "run")
    head, trained = start.state.params["head.weight"], before.state.params["head.weight"]
    assert torch.equal(head[:3], trained)
    torch.testing.assert_close(head[3], trained.mean(0))


def test_plain_sgd_leaves_adams_moment_behind(before: Run, tmp_path: Path) -> None:
    start = started({"weights": str(before.folder), "inner_optimizer": "sgd"}, tmp_path / "run")
    assert torch.equal(start.state.params["head.weight"], before.state.params["head.weight"])
    assert not start.state.inner.v


def test_a_weights_file_of_a_relative_path_is_found_later(
    before: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_weights(load_weights(before.folder), tmp_path / "w.safetensors", {})
    monkeypatch.chdir(tmp_path)
    assert small_config(**SMALL, weights="w.safetensors").outer.weights == str(tmp_path / "w.safetensors")
    start = started({"weights": "w.safetensors"}, tmp_path / "run")
    assert torch.equal(start.state.params["head.weight"], before.state.params["head.weight"])


def test_stopping_and_resuming_needs_the_weights_no_more(before: Run, tmp_path: Path) -> None:
    """The first checkpoint holds them: it is written before the first step."""
    config = small_config(**SMALL, weights=str(before.folder))
    train(config, tmp_path / "run", callbacks=[])
    checkpoint = load_checkpoint(tmp_path / "run" / "last.pt")
    assert checkpoint.config == config


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"weights": "nowhere"}, RunError, "nowhere: neither a run folder nor shipped weights"),
        (
            {"split_seed": 7},
            ConfigError,
            r"divided by seed \(seed 0\); divided by seed \(seed 7\) its training classes",
        ),
        ({"algorithm": "mann"}, ConfigError, "its weights are not those of this network"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    before: Run, tmp_path: Path, changes: dict[str, object], error: type[Exception], message: str
) -> None:
    config = small_config(**({"algorithm": "reptile"} | SMALL | {"weights": str(before.folder)} | changes))
    with pytest.raises(error, match=message):
        train(config, tmp_path / "run", callbacks=[])
    assert not (tmp_path / "run").exists()
