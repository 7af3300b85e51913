"""``reptile presets``: the presets with what was published for them, and the shipped weights."""

from __future__ import annotations

from rich.table import Table

from torchreptile.commands.terminal import Output
from torchreptile.learned import shipped_weights
from torchreptile.presets import PRESETS
from torchreptile.published import FIGURE_ONLY, published


def presets() -> int:
    """List presets and shipped weights."""
    table = Table()
    for heading in ("preset", "published", "published, transductive"):
        table.add_column(heading, no_wrap=True)
    for entry in PRESETS.values():
        task, algorithm = entry.config.task, entry.config.method.algorithm
        cells = [
            published(algorithm, task.dataset, task.way, task.shots, transductive) for transductive in (False, True)
        ]
        shown = [FIGURE_ONLY, "-"] if task.regression else [str(cell or "-") for cell in cells]
        table.add_row(entry.name, *shown)
    console = Output()
    console.print(table)
    console.print(f"shipped weights: {', '.join(shipped_weights()) or 'none'}", highlight=False)
    return 0
