"""Standard output and standard error that may be closed, full or gone: that never ends what is computed.

Text that others chose, such as names of files and classes, cannot move the cursor or change colours.
"""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from typing import IO

from torchreptile.core.errors import first_line

_lost: list[str] = []  # the first reason why something could not be written to standard error


def printable(text: str) -> str:
    """Return text with control characters other than tabs and ends of lines escaped: a terminal only shows it.

    Among them are the escape character, with which names of files could clear the screen, and the characters that
    change the direction of writing, with which they could look like others.

    Example:
        >>> printable("cat\\x1b[2J")
        'cat\\\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(letter if _is_harmless(letter) else _escaped(letter) for letter in text)


def _is_harmless(letter: str) -> bool:
    """Return whether a terminal shows a character and does nothing else."""
    return letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escaped(letter: str) -> str:
    """Return a character as Python writes it."""
    return letter.encode("unicode_escape").decode("ascii")


class Forgiving(io.TextIOBase):
    """A stream whose failures are noted and never raised.

    Example:
        >>> import io
        >>> closed = io.StringIO()
        >>> closed.close()
        >>> Forgiving(closed).write("nobody reads this")
        17
    """

    def __init__(self, stream: IO[str]) -> None:
        """Write to ``stream``."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Write ``text`` if possible; return its length in any case."""
        try:
            self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: closed, or characters that it cannot encode
            self._note(error)
        return len(text)

    def flush(self) -> None:
        """Hand what was written to the operating system if possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._note(error)

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        try:
            return self._stream.isatty()
        except (OSError, ValueError):
            return False

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._stream.fileno()

    def _note(self, error: OSError | ValueError) -> None:
        discard(self._stream)
        if not _lost:
            _lost.append((error.strerror if isinstance(error, OSError) else None) or first_line(error))


def lost_output() -> str:
    """Return why something could not be written to standard error, the first time; empty if everything was."""
    return _lost[0] if _lost else ""


def say(message: str) -> None:
    """Print a line on standard error if that is possible, its control characters escaped."""
    if sys.stderr is not None:  # None where it was closed before Python started
        Forgiving(sys.stderr).write(f"{printable(message)}\n")


def discard(stream: IO[str]) -> None:
    """Drop what a stream holds back because it could not be written; the exit code would tell of it at the end."""
    try:
        number = stream.fileno()
        original, nowhere = os.dup(number), os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):  # not a file of the operating system
        return
    try:
        os.dup2(nowhere, number)
        stream.flush()
    except (OSError, ValueError):
        pass
    finally:
        os.dup2(original, number)
        os.close(original)
        os.close(nowhere)


def prepare_streams() -> None:
    """Make the standard streams take whatever is printed.

    Streams that were closed before this program started become the null device: the next files to be opened would take
    their places, and what a library prints would be written into them. Characters that the terminal's encoding does
    not have are escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
