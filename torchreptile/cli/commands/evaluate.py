"""``reptile evaluate``: evaluate weights, and print the results with published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from torchreptile.cli.commands.console import Output, show_lines
from torchreptile.core.config.presets import PRESETS, preset
from torchreptile.core.distributed.launcher import is_first
from torchreptile.core.errors import ConfigError
from torchreptile.core.files import free
from torchreptile.models.custom import requested_network
from torchreptile.training.evaluation.divergence import DivergedEvaluationError
from torchreptile.training.evaluation.evaluate import evaluate as measure
from torchreptile.training.evaluation.labels import label_of
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.progress_bars import CountBar, StandardError


def evaluate(source: Path, as_json: bool, model: str, per_episode: Path | None = None, **settings: Any) -> int:
    """Evaluate weights and print a table or JSON; return the exit code.

    Args:
        source: a run folder or the name of shipped weights.
        as_json: print JSON instead of a table.
        model: the custom network, such as ``net.py:Net``; empty for the published one.
        per_episode: csv file to write every episode into.
        settings: other arguments of :func:`torchreptile.evaluate`.
    """
    if per_episode is not None:
        _check_new_csv(per_episode)
    failure = None
    try:
        with CountBar(StandardError(quiet=not is_first()), "evaluating", "episodes") as bar:
            evaluation = measure(source, on_progress=bar.update, network=requested_network(model), **settings)
    except DivergedEvaluationError as error:
        evaluation, failure = error.evaluation, error
    if is_first():
        if as_json:
            print(evaluation.to_json())
        else:
            print_evaluation(evaluation, Output())
        if per_episode is not None:
            _write_episodes(evaluation, per_episode)
    if failure is not None:
        raise failure
    return 0


def _check_new_csv(path: Path) -> None:
    """Refuse, before anything is computed, a csv file that exists or cannot be written.

    Raises:
        ConfigError: it is another kind of file, exists, or its folder is missing.
    """
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"--per-episode {path} ends in {path.suffix or 'nothing'}; name a new file that ends in .csv")
    if path.exists() or path.is_symlink():
        raise ConfigError(f"--per-episode {path} exists; name another file, or delete it")
    if not path.parent.is_dir():
        raise ConfigError(f"--per-episode {path} cannot be written: the folder {path.parent} is missing")


def _write_episodes(evaluation: Evaluation, path: Path) -> None:
    """Write every episode, under another name if a file of that name has appeared meanwhile."""
    assert evaluation.episodes is not None
    path = free(path)
    evaluation.episodes.write_csv(path)
    show_lines(f"every episode is in {path}", to_stderr=True)


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """Print a table of accuracies or errors with published numbers."""
    config, task, result = evaluation.config, evaluation.config.task, evaluation.result
    own = f" (the {task.members} these weights were trained on: not a test result)"
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
        table.add_row(label_of(name).name, str(its or "does not apply"), evaluation.published_text(name))
    console.print(table)
    if note := _published_settings(evaluation):
        console.print(note, highlight=False, soft_wrap=True)


def _published_settings(evaluation: Evaluation) -> str:
    """Name the evaluation settings that differ from those of the published numbers; empty if none do."""
    config, task = evaluation.config, evaluation.config.task
    cell = f"{task.dataset}-{task.shots}shot-{task.way}way"
    if cell not in PRESETS or not any(evaluation.published(name) for name in evaluation.result.rows()):
        return ""
    here, there = config.evaluation, preset(cell, config.method.algorithm).evaluation
    changed = [
        f"--{name.replace('_', '-')} {getattr(there, name)} (here {getattr(here, name)})"
        for name in ("eval_steps", "eval_batch", "queries")
        if getattr(there, name) != getattr(here, name)
    ]
    return f"the published numbers were obtained with {' and '.join(changed)}" if changed else ""
