"""``reptile data show``: count and draw the content of a data set."""

from __future__ import annotations

from pathlib import Path

from torchreptile.cli.commands.console import show_lines
from torchreptile.cli.commands.decode_progress import ready
from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.core.files import write_bytes
from torchreptile.data.image_store import ImageStore
from torchreptile.data.leakage import find_leaks
from torchreptile.data.splits import SPLITS, Split
from torchreptile.experiments.reports.contact_sheet import describe, draw_sheet


def show(task: TaskConfig, queries: int, out: Path) -> int:
    """Print the content of every split and pictures that occur in two; draw a contact sheet; return the exit code.

    Args:
        task: the data set, and way and shots of the drawn tasks.
        queries: query images per class of the drawn tasks.
        out: PNG file to write.

    Raises:
        ConfigError: ``out`` is no .png file, or ``queries`` is below 1.
        DataError: no split of the data can be used.
    """
    if out.suffix.lower() != ".png":
        raise ConfigError(f"out is {out}; it must end in .png")
    if queries < 1:
        raise ConfigError(f"queries is {queries}; it must be at least 1")
    splits = ready(task)
    stores: dict[Split, ImageStore] = {}
    for split in SPLITS:
        try:
            stores[split] = splits.get(split)
            show_lines(f"{split}: {describe(stores[split])}")
        except DataError as error:
            show_lines(f"{split}: {error}")
    if not stores:
        raise DataError(f"{task.title}: none of {', '.join(SPLITS)} can be used")
    show_lines(f"identical: {find_leaks(splits).message(excluded=False) or 'no picture is in two splits'}")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, draw_sheet(stores, task.way, task.shots, queries))
    show_lines(out)
    return 0
