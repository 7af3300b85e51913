"""Processes that are started together: who failed is named, and none outlives its launcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.easy import REPOSITORY
from tests.runs import is_there
from torchreptile.core.distributed import launcher
from torchreptile.core.distributed.launcher import launch

RANK = f"""
import os, signal, sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from torchreptile.core.distributed.launcher import LOST, stop_with_launcher
stop_with_launcher()
rank, what, folder = os.environ["RANK"], sys.argv[1], sys.argv[2]
open(f"{{folder}}/rank-{{rank}}-{{os.getpid()}}", "w").close()
if what == "refused" or (what == "fails" and rank == "1"):
    sys.exit(f"a warning\\nreptile: no memory")
if what == "killed" and rank == "1":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "lost":
    sys.exit(LOST if rank == "0" else "reptile: disk full")
if what == "stops":
    os.kill(os.getppid(), signal.SIGTERM)
time.sleep(600)
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that waits for other processes for ten minutes."""
    file = tmp_path / "rank.py"
    file.write_text(RANK)
    monkeypatch.setattr(launcher, "PROGRAM", (str(file),))
    monkeypatch.setattr(launcher, "SAY_SECONDS", 0.3)
    return file


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("killed", 137, "process 1 was killed by SIGKILL\n"),
        ("fails", 1, "process 1 ended with exit code 1: no memory\n"),
        ("lost", 1, "process 1 ended with exit code 1: disk full\n"),
        ("refused", 1, "a warning\nreptile: no memory\n"),  # by all alike: rank 0 says it
        ("stops", 130, "stopped\n"),
    ],
)
def test_the_first_process_that_fails_is_named_and_the_others_end(
    program: Path, capfd: pytest.CaptureFixture[str], what: str, code: int, message: str
) -> None:
    start = time.monotonic()
    assert launch(2, [what, str(program.parent)]) == code
    assert time.monotonic() - start < launcher.GRACE / 2
    assert capfd.readouterr().err == message


@pytest.mark.usefixtures("signals_count")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_no_process_outlives_its_launcher(program: Path, number: signal.Signals) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from torchreptile.core.distributed import launcher\n"
        f"launcher.PROGRAM = ({str(program)!r},)\n"
        f"sys.exit(launcher.launch(2, ['waits', {str(program.parent)!r}]))"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(files := list(program.parent.glob("rank-*"))) < 2:
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started.send_signal(number)
    started.communicate(timeout=20)
    for file in files:
        while is_there(int(file.name.split("-")[2])):
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGHUP")
def test_under_nohup_the_launcher_leaves_hangups_ignored(program: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with launcher._signals_passed_on([]):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
