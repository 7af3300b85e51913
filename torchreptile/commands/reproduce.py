"""The command ``reptile reproduce``."""

from __future__ import annotations

import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from torchreptile.commands.terminal import STOPPED, Output
from torchreptile.data.splits import Split
from torchreptile.files import write_bytes, write_text
from torchreptile.reports.figures import draw_reproduced
from torchreptile.reports.reproduced import measured_rows, to_markdown
from torchreptile.reproduce import EXPERIMENTS, Experiment, experiment
from torchreptile.reproduce.carrying_out import RESULT, carry_out
from torchreptile.reproduce.findings import findings
from torchreptile.reproduce.reproduced import Reproduced


def reproduce(
    name: str,
    out: Path,
    share: float,
    seeds: int,
    split: Split,
    episodes: int,
    at_once: int,
    device: str,
    execution: str,
    data_root: str,
) -> int:
    """Carry an experiment out, print its table, and write result.json, result.md and result.png."""
    which = experiment(name)
    reproduced = carry_out(
        which,
        out,
        share=share,
        seeds=seeds,
        split=split,
        episodes=episodes,
        at_once=at_once,
        device=device,
        execution=execution,
        data_root=data_root,
    )
    if reproduced is None:
        print("stopped; the same command goes on", file=sys.stderr)
        return STOPPED
    markdown, picture = out / "result.md", out / "result.png"
    said = to_markdown(reproduced, which)
    write_text(markdown, said)
    write_bytes(picture, draw_reproduced(reproduced, which))
    print_reproduced(reproduced, which, Output())
    print(f"{out / RESULT}\n{markdown}\n{picture}")
    return 0


def print_reproduced(reproduced: Reproduced, which: Experiment, console: Console) -> None:
    """A line per cell, and what was found."""
    head, rows = measured_rows(reproduced, which)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    for number, heading in enumerate(head):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for found in findings(reproduced, which.kind):
        console.print(f"{found.what}: {found.verdict} ({found.numbers})", highlight=False, soft_wrap=True, markup=False)


def experiments() -> int:
    """List what can be reproduced."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("name", no_wrap=True)
    table.add_column("what; source; outer steps")
    for one in EXPERIMENTS.values():
        trainings, steps = len(one.arms) * one.seeds, max(arm.config.outer.outer_steps for arm in one.arms)
        times = f"{trainings} trainings of " if trainings > 1 else ""
        table.add_row(one.name, f"{one.what}; {one.source}; {times}{steps:,}")
    Output().print(table)
    return 0
