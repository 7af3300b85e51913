"""Stopping runs, and comparing what two of them left behind."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from torchreptile.core.sealed_json import CHECKSUM, sealed
from torchreptile.training.callbacks import Callback
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.run_folder import RunFolder


class OnStep(Callback):
    """Calls a function after every outer step."""

    def __init__(self, act: Callable[[int], object]) -> None:
        self.act = act

    def on_step(self, step: int, done: float, seconds: float) -> None:
        self.act(step)


def stop_at(step: int) -> list[Callback]:
    return [OnStep(lambda now: signal.raise_signal(signal.SIGTERM) if now == step else None)]


def metrics_without_time(folder: Path) -> list[dict[str, Any]]:
    lines = RunFolder(folder).metrics()
    assert all("seconds" in line for line in lines)
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    """Equal bit by bit, but for the time it took: state, generator, metrics, last and best."""
    for name in ("last.pt", "best.pt"):
        a, b = load_checkpoint(one / name), load_checkpoint(other / name)
        assert (a.step, a.best, a.losses, a.data) == (b.step, b.best, b.losses, b.data)
        assert torch.equal(a.generator, b.generator)
        assert a.state.params.keys() == b.state.params.keys()
        for key in a.state.params:
            assert torch.equal(a.state.params[key], b.state.params[key]), f"{name}: {key}"
        for mine, its in zip(a.state.tensors(), b.state.tensors(), strict=True):
            assert torch.equal(mine, its), f"{name}: what optimisers remember, or averages"
    assert metrics_without_time(one) == metrics_without_time(other)


def resealed(content: dict[str, Any]) -> str:
    """JSON of content that a test has changed, with the checksum that fits."""
    return json.dumps(sealed({name: value for name, value in content.items() if name != CHECKSUM}))


def sealed_again(weights: Path) -> None:
    """Give the card of changed weights the checksums that fit, so that it is their content that is refused."""
    card = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    card["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.with_suffix(".json").write_text(resealed(card), encoding="utf-8")


def is_there(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
