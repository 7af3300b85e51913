"""The entry point: one line for whatever goes wrong, and an exit code that tells bugs from bad input."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.in_process import Done, run_reptile
from torchreptile import cli
from torchreptile.cli.commands import presets as command
from torchreptile.core.errors import ConfigError


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException, *words: str) -> Done:
    """What ``reptile presets`` answers where its command raises."""

    def fail() -> int:
        raise error

    monkeypatch.setattr(command, "presets", fail)
    return run_reptile(*words, "presets")


@pytest.mark.parametrize(
    ("error", "code", "named"),
    [
        (
            ValueError("a bug\nof two lines"),
            70,
            "presets: unforeseen error, ValueError: a bug; --traceback shows where",
        ),
        (AssertionError(), 70, "unforeseen error, AssertionError; "),
        (RecursionError("too deep"), 70, "RecursionError: too deep"),
        (RuntimeError("shapes differ"), 70, "RuntimeError: shapes differ"),
        (ConfigError("way is 0"), 2, "way is 0"),
        (MemoryError(), 2, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "not enough memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), 2, "not enough memory"),
        (RuntimeError("can't start new thread"), 2, "not enough memory"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, named: str
) -> None:
    done = raising(monkeypatch, error)
    assert done.returncode == code
    assert done.stderr.startswith("reptile: ")
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("a bug"), ConfigError("way is 0")])
def test_the_traceback_on_request(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setenv("TORCHREPTILE_TRACEBACK", "0")
    assert "Traceback" not in raising(monkeypatch, error).stderr
    monkeypatch.setenv("TORCHREPTILE_TRACEBACK", "1")
    assert "Traceback" in raising(monkeypatch, error).stderr
    monkeypatch.setenv("TORCHREPTILE_TRACEBACK", "")
    done = raising(monkeypatch, error, "--traceback")
    assert done.stderr.startswith("Traceback")
    assert done.stderr.splitlines()[-1].startswith("reptile: ")
    assert os.environ["TORCHREPTILE_TRACEBACK"] == "1"  # for the processes that it starts


def test_control_characters_of_names_are_escaped() -> None:
    done = run_reptile("evaluate", "run\x1b[2J\u202e")
    assert done.returncode == 2
    assert "run\\x1b[2J\\u202e" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "--dataset", "glyphs", "--dry-run", "--way"], "way is a number of 401 digits"),
        (["evaluate", "omniglot-5way", "--episodes"], "episodes is a number of 401 digits"),
        (["train", "--dataset", "glyphs", "--dry-run", "--seed"], "seed is a number of 401 digits"),
        (["demo", "--port"], "port is a number of 401 digits"),
        (["train", "--dataset", "glyphs", "--dry-run", "--inner-lr"], "inner_lr is inf"),
    ],
)
def test_a_number_of_hundreds_of_digits(words: list[str], named: str) -> None:
    done = run_reptile(*words, "1" + "0" * 400)
    assert done.returncode == 2
    assert named in done.stderr
    assert len(done.stderr) < 200


def test_more_digits_than_python_reads_are_not_printed() -> None:
    done = run_reptile("evaluate", "omniglot-5way", "--episodes", "1" + "0" * 5000)
    assert done.returncode == 2
    assert done.stderr == "reptile: 10000000000000000000... is a number of 5,001 digits; no setting is that large\n"


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("WORLD_SIZE", "abc", "WORLD_SIZE is 'abc'"),
        ("WORLD_SIZE", "9" * 30, "WORLD_SIZE is '999"),
        ("RANK", "-1", "RANK is '-1'"),
        ("TORCHREPTILE_CACHE", "~nosuchuser/x", "TORCHREPTILE_CACHE is ~nosuchuser/x"),
        ("TORCHREPTILE_DATA", "~nosuchuser", "TORCHREPTILE_DATA is ~nosuchuser"),
    ],
)
def test_environment_variables(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str) -> None:
    monkeypatch.setenv(variable, value)
    words = ["mini-imagenet-1shot-5way"] if variable == "TORCHREPTILE_DATA" else ["omniglot-5way", "--episodes", "2"]
    done = run_reptile(*(["train", *words, "--dry-run"] if len(words) == 1 else ["evaluate", *words]))
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_terminal_without_the_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with LC_ALL=C and without Python's UTF-8 mode."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "argv", ["reptile", "presets"])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert rb"\xb1" in written.getvalue()  # the sign between a number and its interval


@pytest.mark.usefixtures("signals_count")
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_in_the_first_moments(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "torchreptile", "train", "glyphs-1shot-5way", "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
    )
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():  # torch is being imported
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in printed
    assert "stopped" in printed
