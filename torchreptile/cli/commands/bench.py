"""``reptile bench``: time every execution against a naive loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from torchreptile.cli.commands.console import Output, show_lines
from torchreptile.core.config import Config
from torchreptile.core.device import choose_device
from torchreptile.core.errors import ConfigError
from torchreptile.core.files import write_bytes, write_text
from torchreptile.experiments.benchmark import workloads
from torchreptile.experiments.benchmark.bench import EXECUTIONS, SHAPES, Bench
from torchreptile.experiments.benchmark.bench import bench as run_benchmark
from torchreptile.experiments.reports.benchmark_plot import draw_bench
from torchreptile.training.progress_bars import StandardError


def bench(
    work: Config,
    network: str,
    executions: Sequence[str],
    precisions: Sequence[str],
    rounds: int,
    memory: bool,
    device: str,
    out: Path,
) -> int:
    """Run the benchmark, print a table, write JSON and a figure; return the exit code."""
    unknown = sorted(set(executions) - {workloads.NAIVE, *EXECUTIONS})
    if unknown:
        known = ", ".join([workloads.NAIVE, *EXECUTIONS])
        raise ConfigError(f"unknown execution {', '.join(unknown)}; available: {known}")
    where = choose_device(device)
    graphs = (False, True) if where.type == "cuda" else (False,)
    candidates = [workloads.Candidate(workloads.NAIVE)] if workloads.NAIVE in executions else []
    candidates += [
        workloads.Candidate(execution, precision, graph)
        for execution in executions
        for precision in precisions
        for graph in graphs
        if execution != workloads.NAIVE
    ]
    console = StandardError()
    with console.status("benchmarking") as status:
        result = run_benchmark(
            work, SHAPES[network], candidates, where, rounds, memory,
            on_progress=status.update, on_ready=partial(console.print, highlight=False, soft_wrap=True, markup=False),
        )  # fmt: skip
    print_bench(result, Output())
    picture, numbers = out / f"{network}.png", out / f"{network}.json"
    out.mkdir(parents=True, exist_ok=True)
    write_text(numbers, result.to_json() + "\n")
    write_bytes(picture, draw_bench(result))
    show_lines(numbers, picture)
    return 0


def print_bench(result: Bench, console: Console) -> None:
    """Print a table of all timings, fastest first."""
    outer, inner, env = result.config.outer, result.config.inner, result.environment
    console.print(
        f"{outer.meta_batch} tasks x {inner.inner_steps} inner steps of {inner.inner_batch} images "
        f"{result.image_shape}, {result.rounds} rounds, {env['gpu'] or env['processor']}, {env['threads']} threads, "
        f"torch {env['torch']}; matrix products reach {result.peak_gflops:,.0f} GFLOP/s in fp32",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("execution", no_wrap=True)
    for heading in ("ms/step", "ms/task", "images/s", "of peak", "vs naive", "outside", "MiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for timing in result.timings:
        table.add_row(
            str(timing.candidate),
            f"{timing.outer_step_ms:.1f}",
            f"{timing.task_step_ms:.2f}",
            f"{timing.images_per_second:,.0f}",
            f"{100 * timing.peak_share:.0f}%",
            f"{timing.speedup:.2f}x" if timing.speedup else "-",
            f"{100 * timing.outside:.0f}%" if timing.outside is not None else "-",
            f"{timing.peak_mib:,.0f}" if timing.peak_mib is not None else "-",
        )
    console.print(table)
    console.print(
        "ms/step: a complete outer step; ms/task: an inner step of one task; of peak: share of the speed of those "
        "matrix products; outside: share of the step outside the network's forward and backward passes.",
        soft_wrap=True,
    )
    for name, reason in result.refused.items():
        console.print(f"{name} cannot run here: {reason}", highlight=False, soft_wrap=True)
