"""Jobs in separate processes: answers, messages, failures, and how they are stopped."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.easy import REPOSITORY
from tests.runs import is_there
from torchreptile.core.distributed import jobs
from torchreptile.core.distributed.jobs import Job, Send, do_jobs
from torchreptile.core.errors import ConfigError, RunError


def large(number: int, send: Send) -> list[int]:
    """Sends and answers more than a pipe holds."""
    send([number] * 100_000)
    return [number, torch.get_num_threads(), *range(100_000)]


def refuses(send: Send) -> None:
    raise ConfigError("colour is red; it must be blue")


def full_disk(send: Send) -> None:
    raise OSError(28, "No space left on device", "some/file")


def dies(send: Send) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stubborn(send: Send) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send("begun")
    time.sleep(600)


def do(works: list[Any], at_once: int) -> tuple[dict[int, Any], dict[int, list[Any]], str]:
    """Answers, messages, and the failure."""
    answers: dict[int, Any] = {}
    messages: dict[int, list[Any]] = {}
    try:
        completed = do_jobs(
            [Job(f"job {number}", work) for number, work in enumerate(works)],
            at_once,
            3,
            lambda number, message: messages.setdefault(number, []).append(message),
            answers.__setitem__,
        )
    except RunError as error:
        return answers, messages, str(error)
    assert completed
    return answers, messages, ""


def test_every_answer_and_message_arrives_whatever_the_size() -> None:
    answers, messages, failure = do([partial(large, number) for number in range(3)], at_once=2)
    assert not failure
    assert {number: answer[:2] for number, answer in answers.items()} == {number: [number, 3] for number in range(3)}
    assert messages == {number: [[number] * 100_000] for number in range(3)}


def test_failures_are_named_when_all_others_are_done() -> None:
    answers, _, failure = do([refuses, dies, full_disk, partial(large, 3)], at_once=2)
    assert list(answers) == [3]
    for message in (
        "job 0: colour is red; it must be blue",
        "job 1: its process ended with exit code -9; the same command resumes it",
        "job 2: [Errno 28] No space left on device: 'some/file'",
    ):
        assert message in failure


def test_of_many_failures_the_first_are_named_and_the_others_counted() -> None:
    _, _, failure = do([refuses] * 5, at_once=2)
    assert failure.count("colour is red") == 3
    assert failure.endswith("; and 2 more")


def test_a_process_that_will_not_end_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "GRACE", 0.5)

    def on_message(number: int, message: str) -> None:
        raise KeyboardInterrupt  # as a second Ctrl-C does

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        do_jobs([Job("stubborn", stubborn)], 1, 1, on_message, lambda *_: None)
    assert time.monotonic() - start < 60


def test_no_jobs_are_done_at_once() -> None:
    assert do([], at_once=1) == ({}, {}, "")


def waits(file: str, send: Send) -> None:
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)


def test_a_job_ends_with_its_parent_whatever_it_does(tmp_path: Path) -> None:
    """Killed, the parent cannot say so, and the same command may be given again at once."""
    file = tmp_path / "pid"
    code = (
        "from functools import partial; from tests.core.distributed.test_jobs import waits\n"
        "from torchreptile.core.distributed.jobs import Job, do_jobs\n"
        f"do_jobs([Job('job', partial(waits, {str(file)!r}))], 1, 1, print, print)"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    parent = subprocess.Popen([sys.executable, str(script)], env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    deadline = time.monotonic() + 120
    while not (file.is_file() and file.read_text()):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while is_there(int(file.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_script(script: Path) -> subprocess.CompletedProcess[str]:
    """Run a script that imports the package and its tests; it must succeed."""
    return subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_a_script_needs_no_guard_against_being_imported(tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text(
        "print('read')\n"
        "from tests.core.distributed.test_jobs import large\n"
        "from torchreptile.core.distributed.jobs import Job, do_jobs\n"
        "from functools import partial\n"
        "do_jobs([Job('job', partial(large, 1))], 1, 1, lambda *_: None, lambda _, answer: print(len(answer)))\n"
    )
    done = run_script(script)
    assert (done.stdout, done.stderr) == ("read\n100002\n", "")


def test_work_of_the_script_that_is_run_is_refused_in_one_line(tmp_path: Path) -> None:
    """Functions of a script or notebook, closures, and what cannot be pickled; no process is started."""
    script = tmp_path / "plain.py"
    script.write_text(
        "import threading\n"
        "from functools import partial\n"
        "from tests.core.distributed.test_jobs import large\n"
        "from torchreptile.core.distributed.jobs import Job, do_jobs\n"
        "from torchreptile.core.errors import ConfigError\n"
        "def work(send): return 1\n"
        "class Network: pass\n"
        "for mine in (work, lambda send: 1, partial(large, Network()), partial(large, threading.Lock())):\n"
        "    try:\n"
        "        do_jobs([Job('first', partial(large, 1)), Job('mine', mine)], 1, 1, print, print)\n"
        "    except ConfigError as error:\n"
        "        print(error)\n"
    )
    done = run_script(script)
    lines = done.stdout.splitlines()
    assert (len(lines), done.stderr) == (4, "")
    for line in lines:
        assert line.startswith("mine: cannot be sent to another process (")
        assert line.endswith("into a module, not into the script or notebook that is run")


class Elsewhere:
    """Is missing where it is looked for."""

    def __reduce__(self) -> Any:
        return _import, ("no_such_module",)


def _import(name: str) -> Any:
    return importlib.import_module(name)


def test_work_that_the_other_process_cannot_import_is_refused_in_one_line() -> None:
    _, _, failure = do([partial(large, Elsewhere())], at_once=1)
    assert failure == "job 0: its work cannot be loaded in another process (No module named 'no_such_module')"
