"""Commands that run in this process, with a limit of time: a process of its own would import torch every time."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from types import FrameType
from unittest.mock import patch

from torchreptile import cli
from torchreptile.core.errors import TorchReptileError

LIMIT = 10.0  # seconds of processor time that a command may take over a damaged file
WAIT = 60.0  # seconds of any kind, for one that waits without computing


class HangError(BaseException):
    """A command that took too long; no handler of the program catches it."""


@dataclass(frozen=True)
class Answer:
    """How a command or a reading function ended.

    Attributes:
        code: exit code; for a function 0, or 2 if it refused.
        out: what it printed or returned.
        err: standard error, or the refusal.
        crash: the exception that nobody foresaw; "hang" if it took too long; empty if neither.
    """

    code: int
    out: str
    err: str
    crash: str = ""


def reptile(*words: str, seconds: float = LIMIT) -> Answer:
    """Run ``reptile WORDS`` from its entry point to its exit code, for so many seconds of processor time at most."""
    out, err = io.StringIO(), io.StringIO()
    code, crash = 0, ""
    with patch.object(sys, "argv", ["reptile", *words]), redirect_stdout(out), redirect_stderr(err):
        try:
            with limited(seconds):
                cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except HangError:
            crash = "hang"
        except BaseException as error:  # what escapes the entry point is what is searched for
            crash = f"{type(error).__name__}: {error}"
    if code not in (0, 2) and not crash:
        crash = err.getvalue().strip().splitlines()[-1] if err.getvalue().strip() else f"exit code {code}"
    elif code == 2 and (
        not err.getvalue().splitlines()[-1:] or not err.getvalue().splitlines()[-1].startswith("reptile: ")
    ):
        crash = "refused without a line"
    return Answer(code, out.getvalue(), err.getvalue(), crash)


def call(function: Callable[[], str]) -> Answer:
    """Call a function of the library that reads a file; return its text, or its refusal."""
    try:
        with limited():
            return Answer(0, function(), "")
    except TorchReptileError as error:
        lines = str(error).splitlines()
        return Answer(2, "", str(error), "" if len(lines) == 1 else "refused on several lines")
    except HangError:
        return Answer(1, "", "", "hang")
    except Exception as error:
        return Answer(1, "", "", f"{type(error).__name__}: {error}")


@contextmanager
def limited(seconds: float = LIMIT) -> Iterator[None]:
    """Raise HangError where the block takes too long; warnings are silent, as they are to users by default."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangError

    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * WAIT / LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
