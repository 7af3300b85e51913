"""Flags of ``reptile report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from torchreptile.core.errors import ConfigError
from torchreptile.core.files import free


@dataclass(frozen=True)
class Report:
    """Write a self-contained report.html, report.md, report.csv and curves.png: for one run into its folder, for
    several runs side by side into a new folder.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Run folders."""
    out: Path | None = None
    """Folder to write to; by default the run folder, or a new one under runs/ for several runs."""
    model: str = ""
    """The custom network that was trained, such as net.py:Net: see reptile train --help."""

    def run(self) -> int:
        """Write the report and print the names of its files; return the exit code."""
        from torchreptile.cli.commands.report import report

        if not self.runs:
            raise ConfigError("no run folder is named; reptile report RUN, or several of them")
        several = free(Path("runs") / "report") if len(self.runs) > 1 else None
        return report(self.runs, self.out or several, self.model)
