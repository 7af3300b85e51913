"""Printing and exit codes shared by the commands."""

from __future__ import annotations

from torchreptile.core.distributed.signals import STOPPED as STOPPED
from torchreptile.core.plain_console import PlainConsole
from torchreptile.core.streams import lost_output, printable, say

FILE_WIDTH = 120  # width of wide tables when printed to a file


class Output(PlainConsole):
    """Standard output; a reader that exits early, such as ``head``, causes no error."""

    def __init__(self, width: int | None = None) -> None:
        """Write lines of ``width`` characters; by default those of the terminal."""
        super().__init__(width=width)

    def on_broken_pipe(self) -> None:
        """Leave a broken pipe to the entry point; rich would exit with 1."""
        raise BrokenPipeError


def show_lines(*lines: object, to_stderr: bool = False) -> None:
    """Print lines whose names others have chosen: their control characters are escaped.

    Those on standard error are left out where it is closed or full.
    """
    text = "\n".join(map(str, lines))
    if to_stderr:
        say(text)
    else:
        print(printable(text))


def report_lost_output() -> None:
    """Print on standard output that not everything could be written to standard error, and why."""
    if reason := lost_output():
        show_lines(f"progress and messages could not be written to standard error ({reason})")
