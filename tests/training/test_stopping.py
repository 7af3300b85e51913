"""Signals during what takes long: measurements and the first step stop at once, and nothing of the run is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.easy import small_config
from tests.runs import assert_same_run
from torchreptile.core.distributed.signals import StopRequestedError, stop_on_signals
from torchreptile.data.splits import Splits
from torchreptile.training import session
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.measure import measure as measure_split
from torchreptile.training.outer_step import OuterStep
from torchreptile.training.train import resume, train

HANGUP_OR_ORDER = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize(
    ("hit", "step"), [(1, 2), (4, 4), (6, 6)]
)  # of six measurements, two at a time: the first, one between, the last
def test_a_measurement_is_interrupted_and_made_again(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch, hit: int, step: int
) -> None:
    train(small_config(), tmp_path / "uninterrupted")
    measured = 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal measured
        measured += 1
        if measured == hit:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the measurement went on")
        return measure_split(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(session, "measure", interrupted)
        run = train(small_config(), tmp_path / "run")
    assert (run.step, run.interrupted) == (step, True)
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == step
    run = resume(tmp_path / "run")
    assert (run.step, run.interrupted) == (6, False)
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "run")


class InterruptedStep(OuterStep):
    """Is interrupted when its draws are made, as by Ctrl-C while a compiler runs."""

    def __call__(self, *arguments: Any) -> Any:
        super().__call__(*arguments)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("the step went on")


def test_a_first_step_that_compiles_is_interrupted_and_made_again(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(small_config(), tmp_path / "uninterrupted")
    with monkeypatch.context() as patch:
        patch.setattr(session, "OuterStep", InterruptedStep)
        patch.setattr(session, "_compiles", lambda execution: True)
        run = train(small_config(), tmp_path / "run")
    assert (run.step, run.interrupted) == (0, True)
    assert resume(tmp_path / "run").step == 6
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "run")


@pytest.fixture(autouse=True)
def _same_handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in HANGUP_OR_ORDER]
    yield
    assert [signal.getsignal(number) for number in HANGUP_OR_ORDER] == before


@pytest.mark.usefixtures("signals_count")
@pytest.mark.parametrize("number", HANGUP_OR_ORDER)
def test_every_signal_asks_first_and_interrupts_where_that_is_allowed(number: signal.Signals) -> None:
    with stop_on_signals() as stop:
        with stop.at_once(False):
            assert not stop()
            signal.raise_signal(number)
        assert stop()
        with pytest.raises(StopRequestedError), stop.at_once():
            pytest.fail("a stop was requested before")
    with stop_on_signals() as stop:
        with pytest.raises(StopRequestedError), stop.at_once():
            signal.raise_signal(number)
        assert stop()


@pytest.mark.usefixtures("signals_count")
def test_a_terminal_that_closes_may_send_its_signal_twice() -> None:
    with stop_on_signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_under_nohup_hangups_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)
