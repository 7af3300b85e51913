"""The command line run inside the tests' own process: a process for each command would import torch each time."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from torchreptile import cli


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
