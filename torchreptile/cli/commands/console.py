"""What the commands have in common where they print and end."""

from __future__ import annotations

from rich.console import Console

STOPPED = 130  # exit code of what a signal ended
FILE_WIDTH = 120  # of a wide table that goes to a file


class Output(Console):
    """Standard output; a reader that goes away, such as ``head``, is no error."""

    def on_broken_pipe(self) -> None:
        """Leave it to the entry point; rich would exit with 1."""
        raise BrokenPipeError
