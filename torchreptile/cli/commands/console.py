"""Printing and exit codes shared by the commands."""

from __future__ import annotations

from rich.console import Console

from torchreptile.core.distributed.signals import STOPPED as STOPPED
from torchreptile.core.streams import lost_output

FILE_WIDTH = 120  # width of wide tables when printed to a file


class Output(Console):
    """Standard output; a reader that exits early, such as ``head``, causes no error."""

    def on_broken_pipe(self) -> None:
        """Leave a broken pipe to the entry point; rich would exit with 1."""
        raise BrokenPipeError


def report_lost_output() -> None:
    """Print on standard output that not everything could be written to standard error, and why."""
    if reason := lost_output():
        print(f"progress and messages could not be written to standard error ({reason})")
