"""Usage errors on one line, condensed from the boxes of up to twenty lines that the parser draws."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Iterator, Sequence

from torchreptile.core.errors import ConfigError
from torchreptile.core.streams import Forgiving

_RULE = re.compile(r"^[─-]+$")
_FLAG = re.compile(r"--[a-z][a-z-]*")
_APPLIED = re.compile(r"(\S+) \(applied to reptile[^)]*\)")
_HOME = re.compile(r"^in reptile ([a-z -]+?) --help$")


@contextlib.contextmanager
def one_line_refusals(command: str = "") -> Iterator[None]:
    """Turn a parser error, which draws a box and exits, into a :class:`ConfigError` with a one-line message.

    Args:
        command: the command that was typed, such as ``train``; empty if there was none.
    """
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            yield
    except SystemExit as end:
        if end.code and drawn.getvalue().strip():
            raise ConfigError(condensed(drawn.getvalue(), command)) from end
        raise
    if drawn.getvalue():
        Forgiving(sys.stderr).write(drawn.getvalue())


def condensed(box: str, command: str = "") -> str:
    """Condense a parser's box to its first part, the closest flag or command, and the help command.

    Args:
        box: what the parser printed.
        command: the command that was typed.
    """
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip().strip("│").strip()
        if _RULE.match(text):
            parts.append([])
        elif text and not text.startswith(("╭", "╰")):
            parts[-1].append(text)
    if "╭" not in box:  # without Unicode the box has no frame, and its title is a separate part
        parts = parts[1:] or parts
    message = " ".join(parts[0]).rstrip(".:")
    if misplaced := _APPLIED.findall(message):
        message = f"Unrecognized options: {', '.join(misplaced)}"
    see = (re.findall(r"run (reptile[a-z ]* --help)", box) or ["reptile --help"])[-1]
    unknown_command = False
    for part in parts[1:]:
        text = " ".join(part)
        if text.startswith("Perhaps you meant"):
            message += _suggestion(part[1:], set(_FLAG.findall(message)), command)
        elif text.startswith("Available subcommands:"):
            available = text.removeprefix("Available subcommands:").strip()
            typed = message.rpartition(": ")[2].partition(",")[0]
            near = difflib.get_close_matches(typed, available.split(", "), 1)
            message += f"; available: {available}" + (f"; perhaps you meant {near[0]}" if near else "")
            unknown_command = True
    if see == "reptile --help" and command and not unknown_command:
        see = f"reptile {command} --help"
    return f"{message[0].lower()}{message[1:]}; see {see}"


def _suggestion(lines: Sequence[str], given: set[str], command: str) -> str:
    """Return the command of a flag that was given to another one, and the closest flag of the command.

    Args:
        lines: the parser's similar flags, each followed by the commands that have it.
        given: the flags that were typed, which are never suggested.
        command: the command that was typed.
    """
    homes: dict[str, set[str]] = {}
    flag = ""
    for line in lines:
        if line.startswith("--") and (named := _FLAG.match(line)):
            flag = named[0]
            homes.setdefault(flag, set())
        elif flag and (home := _HOME.match(line)):
            homes[flag].add(home[1])
    for other in sorted(flag for flag in given if homes.get(flag)):  # it exists, but in other commands
        *others, last = sorted(homes[other])
        owners = f"reptile {', '.join(others)} and {last}" if others else f"reptile {last}"
        longer = next((flag for flag in homes if flag.endswith(f"-{other[2:]}") and command in homes[flag]), "")
        return f"; {other} is for {owners}" + (f"; perhaps you meant {longer}" if longer else "")
    close = [flag for flag, its in homes.items() if not its or any(home.split()[0] == command for home in its)]
    return f"; perhaps you meant {close[0]}" if close else ""
