"""``reptile report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from torchreptile.core.errors import ConfigError
from torchreptile.core.files import free


@dataclass(frozen=True)
class Report:
    """Write a one-file report.html, report.md, report.csv and curves.png: of one run into its folder, of several beside
    one another into a folder of their own.
    """

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]
    """Run folders."""
    out: Path | None = None
    """Folder to write to; by default the run's own, of several runs a new one under runs/."""
    model: str = ""
    """The network of your own that was trained, such as net.py:Net: see reptile train --help."""

    def run(self) -> int:
        """Draw, and say where."""
        from torchreptile.cli.commands.report import report

        if not self.runs:
            raise ConfigError("no run folder is named; reptile report RUN, or several of them")
        several = free(Path("runs") / "report") if len(self.runs) > 1 else None
        return report(self.runs, self.out or several, self.model)
