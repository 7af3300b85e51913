"""Callbacks: which events they get, and what becomes of their exceptions."""

from __future__ import annotations

import io
import os
import signal
import traceback
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import torchreptile as tr
from tests.easy import small_config
from tests.runs import assert_same_run, stop_at
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.data.splits import Splits
from torchreptile.models.execution.execution import Execution
from torchreptile.training.callbacks import Callback, OutputCallback
from torchreptile.training.evaluation.results import Measured
from torchreptile.training.progress_bars import CountBar, ManyBar, StandardError
from torchreptile.training.run_folder import RunFolder


class Recorder(Callback):
    """Lists its events."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def on_start(self, folder: Path, config: Config, step: int, execution: Execution) -> None:
        self.events.append(("start", folder.name, step, execution.name))

    def on_step(self, step: int, done: float, seconds: float) -> None:
        self.events.append(("step", step, done))

    def on_evaluation(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
        self.events.append(("evaluation", step, sorted(measured)))

    def on_metrics(self, metrics: dict[str, float | int | str]) -> None:
        self.events.append(("metrics", metrics))

    def on_checkpoint(self, path: Path, step: int) -> None:
        assert path.is_file()
        self.events.append(("checkpoint", path.name, step))

    def on_end(self, folder: Path, step: int, interrupted: bool) -> None:
        self.events.append(("end", step, interrupted))

    def on_exception(self, error: BaseException) -> None:
        self.events.append(("exception", str(error)))


def test_events_come_in_order(tmp_path: Path, easy_data: Splits) -> None:
    recorder = Recorder()
    tr.train(small_config(outer_steps=3, monitor_every=2), tmp_path / "run", [recorder])
    lines = RunFolder(tmp_path / "run").metrics()
    events = [event for event in recorder.events if event[:2] != ("checkpoint", "best.pt")]
    assert events == [
        ("start", "run", 0, "grouped"),
        ("step", 1, 1 / 3),
        ("evaluation", 2, ["train", "val"]),
        ("metrics", lines[0]),
        ("step", 2, 2 / 3),
        ("step", 3, 1.0),
        ("evaluation", 3, ["train", "val"]),
        ("metrics", lines[1]),
        ("checkpoint", "last.pt", 3),
        ("end", 3, False),
    ]
    assert ("checkpoint", "best.pt", 2) in recorder.events


def test_a_stopped_run_is_interrupted_and_starts_again_where_it_was(tmp_path: Path, easy_data: Splits) -> None:
    recorder = Recorder()
    tr.train(small_config(), tmp_path / "run", [*stop_at(2), recorder])
    assert recorder.events[-1] == ("end", 2, True)
    again = Recorder()
    tr.resume(tmp_path / "run", [again])
    assert again.events[0] == ("start", "run", 2, "grouped")


class Failing(Callback):
    def on_step(self, step: int, done: float, seconds: float) -> None:
        if step == 2:
            raise BrokenPipeError("of the user's own")


def test_an_error_in_a_users_callback_is_raised_with_its_own_traceback(tmp_path: Path, easy_data: Splits) -> None:
    """Even one that looks like a closed stream: only output may lose its reader."""
    recorder = Recorder()
    with pytest.raises(BrokenPipeError, match="of the user's own") as raised:
        tr.train(small_config(), tmp_path / "run", [recorder, Failing()])
    assert traceback.extract_tb(raised.value.__traceback__)[-1].filename == __file__
    assert recorder.events[-1] == ("exception", "of the user's own")
    tr.train(small_config(), tmp_path / "uninterrupted")
    tr.resume(tmp_path / "run")
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "run")


class Output(OutputCallback):
    """Raises at every step after the first; counts its calls."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.calls = error, 0

    def on_step(self, step: int, done: float, seconds: float) -> None:
        self.calls += 1
        if step > 1:
            raise self.error


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(5, "Input/output error"), ValueError("I/O operation on closed file.")]
)
def test_output_whose_stream_was_closed_is_dropped(tmp_path: Path, easy_data: Splits, error: Exception) -> None:
    output, recorder = Output(error), Recorder()
    assert tr.train(small_config(), tmp_path / "run", [output, recorder]).step == 6
    assert output.calls == 2
    assert ("step", 6, 1.0) in recorder.events


@pytest.mark.parametrize("error", [SystemExit(3), ConfigError("no such log"), KeyboardInterrupt()])
def test_what_output_raises_on_purpose_is_raised(tmp_path: Path, easy_data: Splits, error: BaseException) -> None:
    with pytest.raises(type(error)):
        tr.train(small_config(), tmp_path / "run", [Output(error)])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("wrong")])
def test_output_that_fails_is_reported_once_and_left_out(
    tmp_path: Path, easy_data: Splits, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """To callbacks that handle warnings, else on standard error."""

    class Warned(Callback):
        def __init__(self) -> None:
            self.messages: list[str] = []

        def on_warning(self, message: str) -> None:
            self.messages.append(message)

    message = f"Output failed and is left out from here on ({error}); the training continues"
    output, warned = Output(error), Warned()
    assert tr.train(small_config(), tmp_path / "one", [output, warned]).step == 6
    assert (output.calls, warned.messages, capsys.readouterr().err) == (2, [message], "")
    assert tr.train(small_config(), tmp_path / "two", [Output(error)]).step == 6
    assert capsys.readouterr().err == f"warning: {message}\n"
    assert_same_run(tmp_path / "one", tmp_path / "two")


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("gone", ["full", "closed", "none"])
def test_a_standard_error_that_cannot_be_written_ends_nothing(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    stream = Full()
    if gone == "closed":
        stream.close()
    monkeypatch.setattr("sys.stderr", None if gone == "none" else stream)
    assert tr.train(small_config(), tmp_path / "run", [tr.ProgressBar(hints=True)]).step == 6
    with CountBar(StandardError(), "evaluating", "episodes") as bar:
        bar.update(1, 2)
    with ManyBar(StandardError(), [1.0]) as many:
        many.warn("a warning")
        many.finish(0, "run")


@pytest.mark.parametrize("closed", ["a file", "a pipe"])
def test_a_progress_bar_without_a_reader_does_not_end_a_training(
    tmp_path: Path, easy_data: Splits, closed: str
) -> None:
    if closed == "a file":
        stream: Any = io.StringIO()
        stream.close()
    else:
        reader, writer = os.pipe()
        os.close(reader)
        stream = os.fdopen(writer, "w")
    console = Console(file=stream)
    console.on_broken_pipe = lambda: None if closed == "a file" else _raise_as_rich_does()  # type: ignore[method-assign]
    assert tr.train(small_config(), tmp_path / "run", [tr.ProgressBar(console)]).step == 6
    if closed == "a pipe":
        with pytest.raises(BrokenPipeError):
            stream.close()


def _raise_as_rich_does() -> None:
    """As rich's own, which would also close this process's standard output."""
    raise SystemExit(1)


def test_what_is_no_callback_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for wrong in ([Recorder], [Recorder(), None], [print]):
        with pytest.raises(ConfigError, match="must be an instance of a subclass of Callback"):
            tr.train(small_config(), tmp_path / "run", wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"callbacks is a Recorder; it must be a list, such as \[callback\]"):
        tr.train(small_config(), tmp_path / "run", Recorder())  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_callback_may_stop_a_training(tmp_path: Path, easy_data: Splits) -> None:
    class Stop(Callback):
        def on_evaluation(self, step: int, loss: float, measured: dict[str, Measured]) -> None:
            signal.raise_signal(signal.SIGINT)

    run = tr.train(small_config(monitor_every=2), tmp_path / "run", [Stop()])
    assert (run.step, run.interrupted) == (2, True)
