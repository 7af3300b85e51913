"""``reptile evaluate``: measure, and print beside the published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from torchreptile.cli.commands.console import Output
from torchreptile.core.config.presets import PRESETS, preset
from torchreptile.core.distributed.launcher import is_first
from torchreptile.models.custom import own_network
from torchreptile.training.evaluation.evaluate import evaluate as measure
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import ERRORS, MODES
from torchreptile.training.progress_bars import CountBar


def evaluate(source: Path, as_json: bool, model: str, **settings: Any) -> int:
    """Measure, and print a table or JSON."""
    with CountBar(Console(stderr=True, quiet=not is_first()), "evaluating", "episodes") as bar:
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
    if said := _otherwise(evaluation):
        console.print(said, highlight=False, soft_wrap=True)


def _otherwise(evaluation: Evaluation) -> str:
    """Where the published numbers are measured otherwise than these were; empty where there are none, or alike."""
    config, task = evaluation.config, evaluation.config.task
    cell = f"{task.dataset}-{task.shots}shot-{task.way}way"
    if cell not in PRESETS or not any(evaluation.published(name) for name in evaluation.result.rows()):
        return ""
    here, there = config.evaluation, preset(cell, config.method.algorithm).evaluation
    changed = [
        f"--{name.replace('_', '-')} {getattr(there, name)} (here {getattr(here, name)})"
        for name in ("eval_steps", "eval_batch")
        if getattr(there, name) != getattr(here, name)
    ]
    return f"the published numbers go with {' and '.join(changed)}" if changed else ""
