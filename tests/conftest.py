"""What every test shares: one thread, an import path to the tests' own modules, and a small data set."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"  # of subprocesses; more threads only make such small work slower
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # or torch.compile starts processes that import torch
torch.set_num_threads(1)

from tests.easy import easy_splits, easy_store  # noqa: E402
from torchreptile.data.image_store import ImageStore  # noqa: E402
from torchreptile.data.splits import Splits  # noqa: E402


@pytest.fixture
def signals_count() -> Iterator[None]:
    """Ctrl-C and SIGHUP as in a terminal: they may be ignored where the tests run in the background or under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL), signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGHUP, before[0])
    signal.signal(signal.SIGINT, before[1])


@pytest.fixture(scope="session")
def store() -> ImageStore:
    """Thirty easy classes of 20 images."""
    return easy_store()


@pytest.fixture(scope="session")
def splits() -> Splits:
    """Easy training, validation and test classes of tiny images."""
    return easy_splits()


@pytest.fixture
def easy_data(monkeypatch: pytest.MonkeyPatch, splits: Splits) -> Splits:
    """Training and evaluation get the easy classes, whatever data set they ask for, a few episodes at a time."""
    for module in ("training.setup", "training.evaluation.evaluate"):
        monkeypatch.setattr(f"torchreptile.{module}.load_splits", lambda task: splits)
    monkeypatch.setattr("torchreptile.training.evaluation.measure.EPISODES_PER_DRAW", 4)
    return splits
