"""``reptile evaluate``: measure, and print beside the published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from torchreptile.commands.terminal import Output
from torchreptile.evaluation import Evaluation
from torchreptile.evaluation import evaluate as measure
from torchreptile.models.own import own_network
from torchreptile.progress import EpisodeBar
from torchreptile.results import ERRORS, MODES
from torchreptile.workers import is_first


def evaluate(source: Path, as_json: bool, model: str, **settings: Any) -> int:
    """Measure, and print a table or JSON."""
    with EpisodeBar(Console(stderr=True, quiet=not is_first())) as bar:
        evaluation = measure(source, on_progress=bar.update, network=own_network(model), **settings)
    if not is_first():
        return 0
    if as_json:
        print(evaluation.to_json())
    else:
        print_evaluation(evaluation, Output())
    return 0


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """A table of both accuracies, or of errors before and after adaptation, beside the published ones."""
    config, task, result = evaluation.config, evaluation.config.task, evaluation.result
    own = f" (the very {task.members} these weights were trained on: no test result)"
    console.print(
        f"{evaluation.source}: {task.kind}, {evaluation.split} {task.members}"
        f"{own if evaluation.on_training_classes else ''} of {task.title} "
        f"(split scheme {task.split_scheme}), weights trained on {evaluation.trained_on}, "
        f"{config.method.algorithm}, {config.evaluation.eval_episodes:,} episodes, {config.adaptation}, "
        f"seed {evaluation.seed}, after {evaluation.step:,} outer steps",
        highlight=False,
        soft_wrap=True,
    )
    table = Table()
    table.add_column("measured" if task.regression else "mode")
    table.add_column(f"{result.measure}, 95% CI", justify="right")
    table.add_column("published", justify="right")
    for name, its in result.rows().items():
        shown = ERRORS.get(name, name.replace("_", "-") if name in MODES else name)
        table.add_row(shown, str(its or "does not apply"), evaluation.beside(name))
    console.print(table)
