"""``reptile report``: write reports of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchreptile.cli.commands.console import show_lines
from torchreptile.experiments.reports import report as report_run
from torchreptile.experiments.reports import report_runs
from torchreptile.models.custom import requested_network


def report(runs: Sequence[Path], out: Path | None, model: str) -> int:
    """Write the report, and print the names of its files; return the exit code."""
    written: list[Path]
    if len(runs) == 1:
        written = report_run(runs[0], requested_network(model), out)
    else:
        written = report_runs(runs, out or Path("runs") / "report")
    for path in written:
        show_lines(path)
    return 0
