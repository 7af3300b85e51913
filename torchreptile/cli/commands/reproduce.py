"""``reptile reproduce``: reproduce rows of the papers' tables and figures."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from torchreptile.cli.commands.console import STOPPED, Output, show_lines
from torchreptile.core.files import write_bytes, write_text
from torchreptile.experiments.reports.reproduction_figures import draw_reproduced
from torchreptile.experiments.reports.reproduction_tables import caution, measurements, to_markdown, unfinished
from torchreptile.experiments.reproduce import EXPERIMENTS, Experiment, find_experiment
from torchreptile.experiments.reproduce.findings import findings
from torchreptile.experiments.reproduce.result import Reproduced
from torchreptile.experiments.reproduce.result_file import RESULT
from torchreptile.experiments.reproduce.runner import ExperimentOptions, TrainingsError, run_experiment


def reproduce(name: str, out: Path, options: ExperimentOptions) -> int:
    """Run an experiment, print its table, and write result.json, result.md and result.png; return the exit code."""
    which = find_experiment(name)
    try:
        reproduced = run_experiment(which, out, options)
    except TrainingsError as failed:
        if failed.others.trainings:
            show(failed.others, which, out)
        raise
    if reproduced is None:
        show_lines("stopped; run the same command again to resume", to_stderr=True)
        return STOPPED
    show(reproduced, which, out)
    return 0


def show(reproduced: Reproduced, which: Experiment, out: Path) -> None:
    """Write table and figure next to result.json, and print the table and the files' names."""
    markdown, picture = out / "result.md", out / "result.png"
    write_text(markdown, to_markdown(reproduced, which))
    write_bytes(picture, draw_reproduced(reproduced, which))
    print_reproduced(reproduced, which, Output())
    show_lines(out / RESULT, markdown, picture)


def print_reproduced(reproduced: Reproduced, which: Experiment, console: Console) -> None:
    """Print the measurements and the findings."""
    for measured in measurements(reproduced, which):
        if measured.what:
            console.print(f"{measured.what}:", highlight=False, soft_wrap=True, markup=False)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
        labels = sum(heading in ("", "measured") for heading in measured.head)
        for number, heading in enumerate(measured.head):
            table.add_column(heading, justify="left" if number < labels else "right")
        for row in measured.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    found = findings(reproduced, which)
    for one in found:
        console.print(f"{one.what}: {one.verdict} ({one.numbers})", highlight=False, soft_wrap=True, markup=False)
    if found and (caveat := caution(reproduced)):
        console.print(f"with 95% confidence intervals; {caveat}", highlight=False, soft_wrap=True)
    if missing := reproduced.missing(which):
        console.print(unfinished(missing), highlight=False, soft_wrap=True, markup=False)


def experiments() -> int:
    """Print a list of all experiments; return the exit code."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("name", no_wrap=True)
    table.add_column("experiment; source; outer steps")
    for one in EXPERIMENTS.values():
        trainings, steps = len(one.arms) * one.seeds, max(arm.config.outer.outer_steps for arm in one.arms)
        times = f"{trainings} trainings of " if trainings > 1 else ""
        table.add_row(one.name, f"{one.what}; {one.source}; {times}{steps:,}")
    Output().print(table)
    return 0
