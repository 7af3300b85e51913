"""What the commands print: each function does one command with the library and returns an exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from torchreptile.config import Config
from torchreptile.data import load_splits
from torchreptile.evaluation import MODES, Evaluation
from torchreptile.evaluation import evaluate as measure
from torchreptile.learned import shipped_weights
from torchreptile.presets import PRESETS, published
from torchreptile.progress import EpisodeBar, LiveLine
from torchreptile.training import Run
from torchreptile.training import resume as resume_run
from torchreptile.training import train as train_run

STOPPED = 130


class _Output(Console):
    """Standard output; a reader that goes away, such as ``head``, is no error."""

    def on_broken_pipe(self) -> None:
        """Leave it to the entry point; rich would exit with 1."""
        raise BrokenPipeError


def train(config: Config, out: Path, tensorboard: bool) -> int:
    """Meta-train with a live line."""
    return _exit_code(train_run(config, out, LiveLine(Console(stderr=True)), tensorboard))


def resume(out: Path, tensorboard: bool) -> int:
    """Go on with a run."""
    return _exit_code(resume_run(out, LiveLine(Console(stderr=True)), tensorboard))


def _exit_code(run: Run) -> int:
    return STOPPED if run.interrupted else 0


def describe(config: Config, out: Path) -> int:
    """Print what a training would do."""
    splits = load_splits(config.task.dataset, config.task.split_scheme, config.task.split_seed)
    val = f"{len(splits.val):,} validation classes" if splits.val else "no validation classes"
    outer, inner = config.outer, config.inner
    print(config.to_json())
    print(f"data: {len(splits.train):,} training classes, {val}, {len(splits.test):,} test classes")
    print(
        f"work: {outer.outer_steps:,} outer steps x {outer.meta_batch} tasks x {inner.inner_steps} inner steps "
        f"= {outer.outer_steps * outer.meta_batch * inner.inner_steps:,} task-steps of {inner.inner_batch} images"
    )
    print(f"would write {out}")
    return 0


def evaluate(source: Path, as_json: bool, **settings: Any) -> int:
    """Measure, and print a table or JSON."""
    with EpisodeBar(Console(stderr=True)) as bar:
        evaluation = measure(source, on_progress=bar.update, **settings)
    if as_json:
        print(evaluation.to_json())
    else:
        print_evaluation(evaluation, _Output())
    return 0


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """A table of both accuracies beside the published ones."""
    config, task = evaluation.config, evaluation.config.task
    console.print(
        f"{evaluation.source}: {task.way}-way {task.shots}-shot, {evaluation.split} classes of {task.dataset} "
        f"(split scheme {task.split_scheme}), weights trained on {evaluation.trained_on}, "
        f"{config.evaluation.eval_episodes:,} episodes, {config.evaluation.eval_steps} inner steps, "
        f"seed {evaluation.seed}, after {evaluation.step:,} outer steps",
        highlight=False,
        soft_wrap=True,
    )
    table = Table()
    table.add_column("mode")
    table.add_column("accuracy, 95% CI", justify="right")
    table.add_column("published", justify="right")
    for mode in MODES:
        cell = evaluation.published(mode)
        shown = f"{cell.accuracy:.2f}% ± {cell.margin:.2f}" if cell else "-"
        table.add_row(mode.replace("_", "-"), str(getattr(evaluation.result, mode)), shown)
    console.print(table)


def report(run: Path) -> int:
    """Draw, and name the files written."""
    from torchreptile.report import report as write_report  # brings matplotlib, which the others do without

    for path in write_report(run):
        print(path)
    return 0


def presets() -> int:
    """List presets and shipped weights."""
    table = Table()
    for heading in ("preset", "published", "published, transductive"):
        table.add_column(heading, no_wrap=True)
    for entry in PRESETS.values():
        task, algorithm = entry.config.task, entry.config.outer.algorithm
        cells = [
            published(algorithm, task.dataset, task.way, task.shots, transductive) for transductive in (False, True)
        ]
        shown = [f"{cell.accuracy:.2f}% ± {cell.margin:.2f}" if cell else "-" for cell in cells]
        table.add_row(entry.name, *shown)
    console = _Output()
    console.print(table)
    console.print(f"shipped weights: {', '.join(shipped_weights()) or 'none'}", highlight=False)
    return 0
