"""Data made ready with a progress bar, for the commands that may be the first to want them."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from torchreptile.core.config import TaskConfig
from torchreptile.data.loading import load_splits
from torchreptile.data.own_images import dataset as folder
from torchreptile.data.splits import Splits
from torchreptile.training.progress_bars import CountBar


def ready(task: TaskConfig) -> Splits:
    """The data, own images decoded with a progress bar where they are not in the cache yet."""
    if not task.data:
        return load_splits(task)
    catalogue = folder.scan(Path(task.data))
    if catalogue.skipped:
        names = ", ".join(catalogue.skipped[:5]) + (", ..." if len(catalogue.skipped) > 5 else "")
        print(f"hidden files passed over: {len(catalogue.skipped):,} ({names})")
    with CountBar(Console(stderr=True), "decoding", "images") as bar:
        folder.load(catalogue, folder.Form.of(task), bar.update)
    return load_splits(task)
