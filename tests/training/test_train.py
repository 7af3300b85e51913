"""Training through the public functions: annealing by steps and by time, what is measured, kept and refused."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.easy import small_config
from tests.runs import OnStep, assert_same_run, metrics_without_time, stop_at
from torchreptile.core.config import OuterConfig
from torchreptile.core.errors import RunError
from torchreptile.data.splits import MissingSplit, Splits
from torchreptile.training import session, trainer
from torchreptile.training.callbacks import Callback
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.measure import measure
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import resume, train


def test_step_size_is_annealed_linearly() -> None:
    outer = OuterConfig(outer_step_size=1.0, outer_step_size_final=0.25)
    assert [outer.step_size_at(done) for done in (0.0, 0.5, 1.0)] == [1.0, 0.625, 0.25]


def test_step_size_is_halved_every_so_many_steps() -> None:
    """As Prototypical Networks were trained; beside the annealing, if there is one."""
    constant = OuterConfig(outer_step_size=1.0, outer_step_size_final=1.0, outer_halve_every=2000)
    assert [constant.step_size_at(0.5, step) for step in (0, 1999, 2000, 4000)] == [1.0, 1.0, 0.5, 0.25]
    annealed = OuterConfig(outer_step_size=1.0, outer_step_size_final=0.0, outer_halve_every=10)
    assert annealed.step_size_at(0.5, 10) == 0.25


def test_every_outer_step_uses_its_share_of_the_annealing(tmp_path: Path, easy_data: Splits) -> None:
    """Steps i = 0 .. n-1 get 1 - i / n, so they add up to (n + 1) / 2."""
    train(small_config(outer_steps=8, monitor_every=1, monitor_episodes=2), tmp_path / "run")
    sizes = [line["outer_step_size"] for line in metrics_without_time(tmp_path / "run")]
    assert sizes == pytest.approx([1 - i / 8 for i in range(8)])
    assert sum(sizes) == pytest.approx(4.5)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Training's clock, which stands still but for ``now``; every outer step takes ``step`` seconds."""
    clock = SimpleNamespace(now=0.0, step=6.0)
    for module in (session, trainer):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    real = session.TrainingSession.outer_step

    def slow(self: Any) -> Any:
        loss = real(self)
        clock.now += clock.step
        return loss

    monkeypatch.setattr(session.TrainingSession, "outer_step", slow)
    return clock


def test_max_minutes_anneals_by_time_over_all_sittings(
    tmp_path: Path, easy_data: Splits, clock: SimpleNamespace
) -> None:
    """One minute is 10 steps of 6 seconds, whatever outer_steps says, in two sessions."""
    config = small_config(outer_steps=1_000_000, max_minutes=1.0, monitor_every=1, monitor_episodes=2)
    first = train(config, tmp_path / "run", stop_at(4))
    assert (first.step, first.interrupted) == (4, True)
    clock.now += 1000.0  # time between the sessions does not count
    second = resume(tmp_path / "run")
    assert (second.step, second.interrupted) == (10, False)
    lines = RunFolder(tmp_path / "run").metrics()
    assert [line["outer_step_size"] for line in lines] == pytest.approx([1 - i / 10 for i in range(10)], abs=1e-5)
    assert [line["seconds"] for line in lines] == pytest.approx([6 * (i + 1) for i in range(10)])


def test_a_run_limited_by_time_is_measured_twenty_times_too(
    tmp_path: Path, easy_data: Splits, clock: SimpleNamespace
) -> None:
    """One minute of 40 steps: one measurement after every second one, one step late at most; in two sessions."""
    clock.step = 1.5
    config = small_config(outer_steps=1_000_000, max_minutes=1.0, monitor_every=0, monitor_episodes=2)
    train(config, tmp_path / "run", stop_at(11))
    resume(tmp_path / "run")
    steps = [line["step"] for line in metrics_without_time(tmp_path / "run")]
    assert steps == pytest.approx([2 * i for i in range(1, 21)], abs=1)
    assert len(steps) == 20


def test_measurements_take_a_tenth_of_a_run_limited_by_time(
    tmp_path: Path, easy_data: Splits, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes of steps of 0.5 s; a measurement of both splits takes 3 s, so there is one in 30 s and one at the
    end, not twenty."""

    def slow(*arguments: Any) -> Any:
        clock.now += 1.5
        return measure(*arguments)

    monkeypatch.setattr("torchreptile.training.session.measure", slow)
    clock.step = 0.5
    train(small_config(outer_steps=1_000_000, max_minutes=2.0, monitor_every=0, monitor_episodes=2), tmp_path / "run")
    seconds = [line["seconds"] for line in RunFolder(tmp_path / "run").metrics()]
    assert 4 <= len(seconds) <= 6
    assert all(later - earlier >= 29 for earlier, later in pairwise(seconds[:-1]))


@pytest.mark.parametrize("when", ["in the outer step", "while it is shown"])
def test_a_run_that_time_ends_is_measured_at_its_end(
    tmp_path: Path, easy_data: Splits, clock: SimpleNamespace, when: str
) -> None:
    """Wherever the time runs out, the last line of the metrics is of the last step."""

    def tick(step: int) -> None:
        clock.now += 6.0

    callback = Callback()
    if when == "while it is shown":
        clock.step, callback = 0.0, OnStep(tick)
    run = train(small_config(outer_steps=1_000_000, max_minutes=0.5, monitor_every=1000), tmp_path / "run", [callback])
    assert not run.interrupted
    assert [line["step"] for line in metrics_without_time(run.folder)] == [run.step]
    assert run.measured


def test_same_seed_same_run_and_another_seed_another(tmp_path: Path, easy_data: Splits) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(small_config(outer_steps=3, seed=seed), tmp_path / name)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    a, c = (load_checkpoint(tmp_path / name / "last.pt").state.params["head.weight"] for name in "ac")
    assert not torch.allclose(a, c, atol=1e-3)


def test_best_is_the_checkpoint_of_the_highest_validation_accuracy(tmp_path: Path, easy_data: Splits) -> None:
    for transductive in (False, True):
        out = tmp_path / str(transductive)
        train(small_config(transductive=transductive, monitor_every=1), out)
        key = "val_transductive" if transductive else "val_inductive"
        lines = metrics_without_time(out)
        highest = max(line[key] for line in lines)
        best = load_checkpoint(out / "best.pt")
        assert best.best == highest
        assert best.step == next(line["step"] for line in lines if line[key] == highest)  # the first of equals
        assert load_checkpoint(out / "last.pt").best == highest


def test_without_validation_classes_there_is_no_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: Splits
) -> None:
    monkeypatch.setattr(
        "torchreptile.training.setup.load_splits",
        lambda task: Splits(splits.train, MissingSplit("no val"), splits.test),
    )
    run = train(small_config(outer_steps=2), tmp_path / "run")
    assert set(run.measured) == {"train"}
    assert not (tmp_path / "run" / "best.pt").exists()


def test_training_never_touches_the_test_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: Splits
) -> None:
    monkeypatch.setattr(
        "torchreptile.training.setup.load_splits",
        lambda task: Splits(splits.train, splits.val, MissingSplit("no test")),
    )
    assert train(small_config(outer_steps=2), tmp_path / "run").step == 2


def test_an_existing_run_is_refused(tmp_path: Path, easy_data: Splits) -> None:
    train(small_config(outer_steps=1), tmp_path / "run")
    before = (tmp_path / "run" / "last.pt").read_bytes()
    with pytest.raises(RunError, match="exists"):
        train(small_config(outer_steps=1), tmp_path / "run")
    assert (tmp_path / "run" / "last.pt").read_bytes() == before


def test_training_outside_the_main_thread(tmp_path: Path, easy_data: Splits) -> None:
    """Where Python takes no signal handlers."""
    steps: list[int] = []
    worker = threading.Thread(target=lambda: steps.append(train(small_config(outer_steps=2), tmp_path / "run").step))
    worker.start()
    worker.join()
    assert steps == [2]
