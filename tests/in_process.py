"""What the program does in processes, done in the tests' own: each process would import torch for a second or two.

Where the process matters (its exit code, its memory, its end), a test starts one.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch

from torchreptile import cli
from torchreptile.core.distributed.jobs import Job, JobsError
from torchreptile.core.errors import TorchReptileError


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_reptile(*words: str) -> Done:
    """Run ``reptile WORDS`` from its entry point to its exit code."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with patch.object(sys, "argv", ["reptile", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as ended:
            if not isinstance(ended.code, int):  # the interpreter would print it
                raise TypeError(f"exit code {ended.code!r}") from ended
            code = ended.code
    return Done(code, out.getvalue(), err.getvalue())


def do_jobs(
    jobs: Sequence[Job],
    at_once: int,
    threads: int,
    on_message: Callable[[int, Any], None],
    on_done: Callable[[int, Any], None],
) -> bool:
    """Stand in for :func:`torchreptile.core.distributed.jobs.do_jobs`: one job after another, in this process, each
    with its number of threads.

    Jobs, messages and answers are pickled as if they went to another process.
    """
    failed = []
    for number, job in enumerate(jobs):

        def send(message: Any, number: int = number) -> None:
            on_message(number, pickle.loads(pickle.dumps(message)))

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            answer = pickle.loads(pickle.dumps(job)).work(send)
        except TorchReptileError as error:
            failed.append(f"{job.name}: {error}")
            continue
        finally:
            torch.set_num_threads(before)
        if answer is None:  # a signal stopped it
            return False
        on_done(number, pickle.loads(pickle.dumps(answer)))
    if failed:
        raise JobsError("; ".join(failed))
    return True
