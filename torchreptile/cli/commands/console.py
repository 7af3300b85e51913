"""Printing and exit codes shared by the commands."""

from __future__ import annotations

from rich.console import Console

STOPPED = 130  # exit code after a signal
FILE_WIDTH = 120  # width of wide tables when printed to a file


class Output(Console):
    """Standard output; a reader that exits early, such as ``head``, causes no error."""

    def on_broken_pipe(self) -> None:
        """Leave a broken pipe to the entry point; rich would exit with 1."""
        raise BrokenPipeError
