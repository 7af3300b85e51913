"""Runs as Markdown and CSV tables: trainings and their evaluations, with published numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from torchreptile.core.config import Config
from torchreptile.core.csv_text import write_rows
from torchreptile.core.environment import hardware
from torchreptile.core.streams import printable
from torchreptile.experiments.reports.run_data import SPLITS, Recorded
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.progress_bars import duration

CSV_COLUMNS = (
    "run", "algorithm", "trained_on", "outer_steps_done", "training_seconds", "training_seed", "dataset",
    "split_scheme", "split", "way", "shots", "train_shots", "evaluated_step", "measure", "mean", "ci95", "episodes",
    "seed", "published_percent", "published_source", "adaptation", "torch", "hardware", "command",
)  # fmt: skip


def to_csv(runs: Sequence[Recorded]) -> str:
    """Return a CSV table with one line per metric and evaluation, and one for a run without evaluations.

    Accuracies are from 0 to 1; published ones are in percent, as printed.
    """
    file = io.StringIO()
    rows: list[Sequence[Any]] = [CSV_COLUMNS]
    for run in runs:
        task = run.config.task
        training = {
            "run": run.name, "algorithm": run.config.method.algorithm, "trained_on": task.title,
            "outer_steps_done": run.step, "training_seconds": round(run.seconds, 1),
            "training_seed": run.config.run.seed, "train_shots": task.train_shots,
        }  # fmt: skip
        measured = [training | line for evaluation in run.evaluations for line in _csv_lines(evaluation)]
        rows += [[line.get(column, "") for column in CSV_COLUMNS] for line in measured or [training]]
    write_rows(file, rows)
    return file.getvalue()


def _csv_lines(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return one CSV line per metric of an evaluation."""
    task, environment = evaluation.config.task, evaluation.environment
    common = {
        "dataset": task.title, "split_scheme": task.split_scheme, "split": evaluation.split, "way": task.way,
        "shots": task.shots, "evaluated_step": evaluation.step, "seed": evaluation.seed,
        "adaptation": evaluation.config.adaptation,
        "torch": environment.get("torch", ""), "hardware": hardware(environment),
        "command": str(environment.get("command") or ""),
    }  # fmt: skip
    lines = []
    for name, measured in evaluation.result.measures().items():
        cell = evaluation.published(name)
        published = {"published_percent": cell.accuracy, "published_source": cell.source} if cell else {}
        metric = {"measure": name, "mean": measured.mean, "ci95": measured.ci95, "episodes": measured.episodes}
        lines.append(common | metric | published)
    return lines


def to_markdown(runs: Sequence[Recorded]) -> str:
    """Return Markdown tables of the runs, their evaluations and the settings that differ between them."""
    parts = ["# " + ", ".join(plain(run.name) for run in runs)]
    about = [
        (run.name, run.config.method.algorithm, run.config.task.title, f"{run.step:,}", duration(run.seconds))
        for run in runs
    ]
    parts.append(table(("run", "algorithm", "trained on", "outer steps", "training"), about))
    measured = [line for run in runs for evaluation in run.evaluations for line in markdown_lines(run, evaluation)]
    parts.append("## Measured\n")
    if measured:
        parts.append(
            table(
                (
                    "run",
                    "measured on",
                    "adaptation",
                    "measure",
                    "± 95% CI",
                    "published",
                    "outer steps",
                    "episodes",
                    "seed",
                ),
                measured,
            )
        )
    else:
        parts.append("No evaluation yet: run `reptile evaluate RUN` to measure on test classes.")
    if differing := differences([run.config for run in runs]):
        parts.append("## Settings that differ\n")
        parts.append(table(("setting", *(run.name for run in runs)), [(name, *values) for name, values in differing]))
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)


def markdown_lines(run: Recorded, evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return one table line per metric of an evaluation."""
    where = measured_on(evaluation)
    return [
        (
            run.name,
            where,
            evaluation.config.adaptation,
            name.replace("_", "-"),
            str(measured),
            evaluation.published_text(name),
            f"{evaluation.step:,}",
            f"{measured.episodes:,}",
            str(evaluation.seed),
        )
        for name, measured in evaluation.result.measures().items()
    ]


def measured_on(evaluation: Evaluation) -> str:
    """Describe the evaluated classes or tasks unambiguously: data set, split scheme, kind of task and split."""
    task = evaluation.config.task
    how = [] if task.regression else [f"split scheme {task.split_scheme}"]
    how += [f"split seed {task.split_seed}"] if task.split_seed else []
    how += ["inverted"] if task.inverted else []
    how += [task.data] if task.data else []
    division = f" ({', '.join(how)})" if how else ""
    return f"{task.title}{division}, {task.kind}, {SPLITS[evaluation.split]} {task.members}"


def differences(configs: Sequence[Config]) -> list[tuple[str, list[str]]]:
    """Return the settings that are not equal in all ``configs``, each with its values in order.

    Example:
        >>> differences([Config(), Config().replace(way=20)])
        [('way', ['5', '20'])]
    """
    flat = [config.by_name() for config in configs]
    return [(key, [str(each[key]) for each in flat]) for key in flat[0] if len({str(each[key]) for each in flat}) > 1]


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    Example:
        >>> print(table(("way", "accuracy"), [("5", "97.7%")]), end="")
        | way | accuracy |
        | --- | --- |
        | 5 | 97.7% |
    """
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(plain(str(cell)) for cell in row) + " |" for row in rows) + "\n"


def plain(text: str) -> str:
    """Return Markdown that shows ``text`` as it is, on one line, also in a table's cell; ``<br>`` alone ends a line.

    Example:
        >>> print(plain("a|b [c](d) `e` <f>"))
        a\\|b \\[c\\](d) \\`e\\` \\<f>
    """
    return re.sub(r"([\\`*\[\]|]|<(?!br>))", r"\\\1", " ".join(printable(text).split()))


def code(text: str) -> str:
    """Return Markdown that shows ``text`` as code, whatever backticks are in it.

    Example:
        >>> print(code("reptile evaluate a`b"))
        `` reptile evaluate a`b ``
    """
    words = " ".join(printable(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", words)), default=0))
    return f"{fence}{words}{fence}" if fence == "`" else f"{fence} {words} {fence}"
