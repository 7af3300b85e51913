"""A console that shows text as it is: nothing in it is markup, an emoji's name or an order to the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from torchreptile.core.streams import printable


class PlainConsole(Console):
    """A console for text that holds names of files, classes and runs, which may contain anything.

    Example:
        >>> PlainConsole(width=40).print("run folder a[/b] \\x1b[2J", highlight=False)
        run folder a[/b] \\x1b[2J
    """

    def __init__(self, stderr: bool = False, quiet: bool = False, width: int | None = None) -> None:
        """Write to standard output.

        Args:
            stderr: write to standard error instead.
            quiet: write nothing.
            width: characters in a line; by default those of the terminal.
        """
        super().__init__(stderr=stderr, quiet=quiet, width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text as a console shows it, its control characters escaped."""
        return super().render_str(printable(text), **options)
