"""The help of ``reptile train`` in short: the flags used most, of the ninety there are."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence

COMMON = (
    "--help", "--out", "--resume", "--dry-run", "--algorithm", "--dataset", "--data", "--table", "--model", "--way",
    "--shots", "--inner-lr", "--inner-steps", "--meta-batch", "--outer-steps", "--outer-step-size", "--max-minutes",
    "--seed", "--device", "--workers", "--log",
)  # fmt: skip
ALGORITHM = "config.method options"  # title of the settings that only the requested algorithm has
ALL = "--help-all"
WIDEST = 129  # characters up to which the parser draws one box below the other; from 130 on they are side by side
ASCII = str.maketrans("╭╮╰╯─│", "++++-|")


class _Drawn(io.StringIO):
    """Text in which the parser draws boxes whatever the terminal."""

    encoding = "utf-8"


def asks_for_short_help(words: Sequence[str]) -> bool:
    """Return whether a command line asks for the help of ``train``, and not for all of it."""
    return words[:1] == ["train"] and ALL not in words and not {"-h", "--help"}.isdisjoint(words)


@contextlib.contextmanager
def short_help(words: Sequence[str]) -> Iterator[None]:
    """Print the help that the parser draws, before it exits, in short where the command line asks for that."""
    if not asks_for_short_help(words):
        yield
        return
    drawn = _Drawn()
    try:
        with contextlib.redirect_stdout(drawn), _terminal_of(min(shutil.get_terminal_size().columns, WIDEST)):
            yield
    finally:
        text = shortened(drawn.getvalue())
        if "utf" not in (sys.stdout.encoding or "").lower():
            text = text.translate(ASCII)
        sys.stdout.write(text)


@contextlib.contextmanager
def _terminal_of(columns: int) -> Iterator[None]:
    """Let the terminal seem to have so many columns."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def shortened(drawn: str) -> str:
    """Return a drawn help with the common flags in one box, those of the algorithm in another, and a last line.

    Args:
        drawn: the help of all flags, in one box per group of settings.
    """
    before, boxes = _boxes(drawn.splitlines())
    top, bottom = boxes["options"][0], boxes["options"][-1]
    entries = {flag: entry for box in boxes.values() for flag, entry in _entries(box).items()}
    common = [line for flag in COMMON for line in entries.get(flag, [])]
    own = {flag: entry for flag, entry in _entries(boxes.get(ALGORITHM, [])).items() if flag not in COMMON}
    lines = [*before, *boxes.get("positional arguments", []), top, *common, bottom]
    if own:
        title = "╭─ settings of this algorithm "
        lines += [
            title + "─" * (len(top) - len(title) - 1) + "╮",
            *(line for its in own.values() for line in its),
            bottom,
        ]
    shown = sum(flag in entries for flag in COMMON) + len(own)
    return "\n".join([*lines, f"{len(entries) - shown} more settings: reptile train {ALL}", ""])


def _boxes(lines: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the lines before the first box, and the lines of every box by its title."""
    before: list[str] = []
    boxes: dict[str, list[str]] = {}
    box = before
    for line in lines:
        if line.startswith("╭─ "):
            box = boxes.setdefault(line.strip("╭╮─ "), [])
        box.append(line)
    return before, boxes


def _entries(box: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines of every flag of a box, by its long name."""
    entries: dict[str, list[str]] = {}
    entry: list[str] = []
    for line in box[1:-1]:
        if line.startswith("│ -"):
            flag = next(word for word in line.split() if word.startswith("--"))
            entry = entries.setdefault(flag, [])
        entry.append(line)
    return entries
