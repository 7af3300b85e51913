"""The examples of docs/callbacks.md and docs/loop.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.easy import load_script, small_config
from torchreptile.algorithms.build import build_algorithm
from torchreptile.data.loading import load_splits
from torchreptile.data.splits import Splits
from torchreptile.training.outer_step import OuterStep


def test_reptile_written_out_is_the_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    """Three outer steps from the same random numbers, by the library's own outer step."""
    loop = load_script("examples", "reptile_loop")
    written_out = loop.main(steps=3, episodes=4)
    assert "validation classes: " in capsys.readouterr().out
    config = loop.CONFIG.replace(
        meta_batch=loop.TASKS, train_shots=loop.SHOTS, inner_batch=loop.BATCH, inner_steps=loop.INNER_STEPS
    )
    store, generator = load_splits(config.task).train, torch.Generator().manual_seed(0)
    algorithm = build_algorithm(config, store.image_shape, torch.device("cpu"))
    outer_step = OuterStep(algorithm, algorithm.sampler(store), config.outer, generator, record=False)
    state = algorithm.begin(seed=0)
    for step in range(3):
        state, _ = outer_step(state, 1 - step / 3)
    for name, p in state.params.items():
        torch.testing.assert_close(written_out.params[name], p, rtol=1e-4, atol=1e-5)


def test_early_stopping(tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = load_script("examples", "callback")
    monkeypatch.setattr(callback.tr, "preset", lambda name: small_config(), raising=False)
    steps = callback.main(tmp_path / "run")
    assert 40 <= steps < 2000
    assert steps % 10 == 0
