"""``reptile compare``: train several algorithms under one budget; print a table and draw a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from torchreptile.cli.commands.console import FILE_WIDTH, STOPPED, Output, show_lines
from torchreptile.core.files import write_bytes
from torchreptile.data.splits import Split
from torchreptile.experiments.compare import compare as run_comparison
from torchreptile.experiments.comparison import Comparison, Row
from torchreptile.experiments.reports.comparison_plot import draw_comparison
from torchreptile.training.evaluation.labels import ERRORS, MODES, label_of
from torchreptile.training.evaluation.results import SquaredError


def compare(
    preset: str,
    algorithms: Sequence[str],
    seeds: int,
    out: Path,
    split: Split,
    episodes: int,
    changes: dict[str, Any],
    as_json: bool,
) -> int:
    """Train and evaluate what is missing, then print and draw the comparison; return the exit code."""
    comparison = run_comparison(preset, algorithms, seeds, out, split=split, episodes=episodes, **changes)
    if comparison is None:
        show_lines("stopped; run the same command again to resume", to_stderr=True)
        return STOPPED
    picture = out / "comparison.png"
    write_bytes(picture, draw_comparison(comparison))
    if as_json:
        print(comparison.to_json())
        return 0
    terminal = Output()
    print_comparison(comparison, terminal if terminal.is_terminal else Output(width=FILE_WIDTH))
    show_lines(out / "comparison.json", picture)
    return 0


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a table with one line per algorithm."""
    first = comparison.trained[0].evaluation
    task = first.config.task
    console.print(
        f"{task.kind} on {first.split} {task.members} of {task.title} "
        f"(split scheme {task.split_scheme}), {comparison.budget}, "
        f"{first.config.evaluation.eval_episodes:,} episodes per seed, "
        f"{comparison.environment['gpu'] or comparison.environment['processor']}, "
        f"{comparison.environment['threads']} threads",
        highlight=False,
        soft_wrap=True,
    )
    rows = comparison.rows()
    several = any(row.seeds > 1 for row in rows)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("algorithm", no_wrap=True)
    measures = ("mse", "mse_before") if task.regression else MODES
    headings = [label_of(measure).short for measure in measures]
    for heading in (*headings, *(["sd"] if several else []), "steps", "min", "params", "ms/task", "MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.algorithm,
            *(_shown(row, measure) for measure in measures),
            *(["/".join(_spread(row, measure) for measure in measures)] if several else []),
            f"{row.steps:,.0f}" if row.parameters else "-",
            f"{row.seconds / 60:.1f}" if row.parameters else "-",
            f"{row.parameters:,}" if row.parameters else "-",
            f"{row.adapt_ms:.1f}",
            f"{row.peak_mib:,.0f}" if row.peak_mib else "-",
        )
    console.print(table)
    seeds = f"; sd: standard deviation between {rows[0].seeds} seeds, for each mode" if several else ""
    what, end = "accuracy in percent", "the labels of its queries"
    if task.regression:
        what, end = "mean squared error after and before adaptation", "its predictions"
    console.print(
        f"{what} with 95% CI over episodes{seeds}; min: minutes of training, including monitoring; ms/task: "
        f"a single task, from its support set to {end}; MiB: peak memory of the training process; -: does not "
        "apply or is unknown.",
        soft_wrap=True,
    )
    for row in rows:
        if row.extra_metrics:
            others = ", ".join(f"{name} {_shown(row, name)}" for name in row.extra_metrics)
            console.print(f"{row.algorithm}: {others}", highlight=False, soft_wrap=True)


def _shown(row: Row, measure: str) -> str:
    """Format a metric with its interval, accuracies in percent; ``-`` where it does not apply."""
    if measure not in row.accuracy:
        return "-"
    mean, ci95 = row.accuracy[measure], row.ci95[measure]
    return str(SquaredError(mean, ci95, 0)) if measure in ERRORS else f"{100 * mean:.2f} ± {100 * ci95:.2f}"


def _spread(row: Row, measure: str) -> str:
    """Format the standard deviation between seeds, in percentage points for accuracies."""
    if measure not in row.between:
        return "-"
    spread = row.between[measure] or 0
    return f"{spread:.2g}" if measure in ERRORS else f"{100 * spread:.2f}"
