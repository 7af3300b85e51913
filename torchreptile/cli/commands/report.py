"""``reptile report``: pages, tables and pictures of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchreptile.experiments.reports import report as report_one
from torchreptile.experiments.reports import report_beside
from torchreptile.models.custom import own_network


def report(runs: Sequence[Path], out: Path | None, model: str) -> int:
    """Draw, and name the files written."""
    if len(runs) == 1:
        written = report_one(runs[0], own_network(model), out)
    else:
        written = report_beside(runs, out or Path("runs") / "report")
    for path in written:
        print(path)
    return 0
