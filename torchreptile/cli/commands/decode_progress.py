"""Loading data with a progress bar, for commands that may be the first to use them."""

from __future__ import annotations

from pathlib import Path

from torchreptile.cli.commands.console import show_lines
from torchreptile.core.config import TaskConfig
from torchreptile.data import own_images
from torchreptile.data.loading import load_splits
from torchreptile.data.splits import Splits
from torchreptile.training.progress_bars import CountBar, StandardError


def ready(task: TaskConfig) -> Splits:
    """Load the data; own images that are not in the cache yet are decoded with a progress bar."""
    if not task.data:
        return load_splits(task)
    catalogue = own_images.scan(Path(task.data))
    if catalogue.skipped:
        names = ", ".join(catalogue.skipped[:5]) + (", ..." if len(catalogue.skipped) > 5 else "")
        show_lines(f"hidden files skipped: {len(catalogue.skipped):,} ({names})")
    with CountBar(StandardError(), "decoding", "images") as bar:
        own_images.load(catalogue, own_images.Form.of(task), bar.update)
    return load_splits(task)
