"""Usage errors on one line, condensed from the boxes of up to twenty lines that the parser draws."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

from torchreptile.core.errors import ConfigError
from torchreptile.core.streams import say

_RULE = re.compile(r"^[─-]+$")
_FLAG = re.compile(r"--[a-z][a-z-]*")


@contextlib.contextmanager
def one_line_refusals() -> Iterator[None]:
    """Turn a parser error, which draws a box and exits, into a :class:`ConfigError` with a one-line message."""
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            yield
    except SystemExit as end:
        if end.code and drawn.getvalue().strip():
            raise ConfigError(condensed(drawn.getvalue())) from end
        raise
    if warnings := drawn.getvalue():
        say(warnings.rstrip("\n"))


def condensed(box: str) -> str:
    """Condense a parser's box to its first part, the closest flag if one is suggested, and the help command."""
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
    for part in parts[1:]:
        text = " ".join(part)
        if text.startswith("Perhaps you meant") and (flag := _FLAG.search(text)):
            message += f"; perhaps you meant {flag[0]}"
        elif text.startswith("Available subcommands:"):
            message += f"; available: {text.removeprefix('Available subcommands:').strip()}"
    helps = re.findall(r"reptile[a-z ]* --help", box)
    return f"{message[0].lower()}{message[1:]}; see {helps[-1] if helps else 'reptile --help'}"
