"""What the parser of the command line says of a mistake, as one line; it draws boxes of up to twenty."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator

from torchreptile.core.errors import ConfigError

_RULE = re.compile(r"^[─-]+$")
_FLAG = re.compile(r"--[a-z][a-z-]*")


@contextlib.contextmanager
def one_line_refusals() -> Iterator[None]:
    """Turn the parser's exit with a box on standard error into a :class:`ConfigError` of one line."""
    drawn = io.StringIO()
    try:
        with contextlib.redirect_stderr(drawn):
            yield
    except SystemExit as end:
        if end.code and drawn.getvalue().strip():
            raise ConfigError(condensed(drawn.getvalue())) from end
        raise
    sys.stderr.write(drawn.getvalue())


def condensed(box: str) -> str:
    """The first part of a box, with the nearest flag where one is proposed, and where the help is."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip().strip("│").strip()
        if _RULE.match(text):
            parts.append([])
        elif text and not text.startswith(("╭", "╰")):
            parts[-1].append(text)
    if "╭" not in box:  # where there is no Unicode there is no frame, and the title stands in a part of its own
        parts = parts[1:] or parts
    said = " ".join(parts[0]).rstrip(".:")
    for part in parts[1:]:
        text = " ".join(part)
        if text.startswith("Perhaps you meant") and (flag := _FLAG.search(text)):
            said += f"; perhaps you meant {flag[0]}"
        elif text.startswith("Available subcommands:"):
            said += f"; there are {text.removeprefix('Available subcommands:').strip()}"
    helps = re.findall(r"reptile[a-z ]* --help", box)
    return f"{said[0].lower()}{said[1:]}; see {helps[-1] if helps else 'reptile --help'}"
