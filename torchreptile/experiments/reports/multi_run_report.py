"""Report of several runs side by side: an HTML page, Markdown and CSV (``reptile report RUN RUN ...``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchreptile.core.environment import hardware
from torchreptile.core.errors import ConfigError
from torchreptile.experiments.reports.markdown_csv import differences, measured_on, to_csv, to_markdown
from torchreptile.experiments.reports.plot_style import DARK, DPI, LIGHT, Palette, png_of, style
from torchreptile.experiments.reports.run_data import SPLITS, Recorded, read_run
from torchreptile.experiments.reports.run_report import PicturePair, render, write_report
from torchreptile.training.evaluation.labels import label_of
from torchreptile.training.progress_bars import duration
from torchreptile.training.run_folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can distinguish; with more runs, dashes differ too.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
COLORS_ON_DARK = ("#56b4e9", "#f0a03c", "#2fc99a", "#e09cc4", "#f0e442", "#8ab8ff")
DASHES = ("-", "--", ":", "-.")


def report_runs(paths: Sequence[Path | str], out: Path | str) -> list[Path]:
    """Write ``report.html``, ``report.md``, ``report.csv`` and ``curves.png`` that compare runs.

    Args:
        paths: the run folders.
        out: folder to write to.

    Returns:
        The files.

    Raises:
        ConfigError: a run is named twice, classification and regression are mixed, or ``out`` is a run folder.
        RunError: a folder is not a run folder, or is damaged.
    """
    if RunFolder(Path(out)).config_file.exists():
        raise ConfigError(f"{out} is a run folder, whose own report would be replaced; name another folder with --out")
    runs = [read_run(Path(path)) for path in paths]
    resolved = [run.folder.path.resolve() for run in runs]
    if len(set(resolved)) < len(resolved):
        raise ConfigError(f"a run is named twice among {', '.join(map(str, paths))}")
    if len({run.name for run in runs}) < len(runs):
        runs = [replace(run, name=str(path)) for run, path in zip(runs, paths, strict=True)]
    if len({run.config.task.regression for run in runs}) > 1:
        raise ConfigError("some of these runs label images and some fit functions; report them separately")
    pair = [draw_runs(runs, dark=dark) for dark in (False, True)]
    page = render(
        "multi_run.html.jinja",
        runs=[_about(run) for run in runs],
        measured=_measured(runs),
        curves=PicturePair(pair[0], pair[1], "Learning curves of the runs"),
        names=[run.name for run in runs],
        differing=differences([run.config for run in runs]),
        regression=runs[0].config.task.regression,
    )
    texts = {"report.html": page, "report.md": to_markdown(runs), "report.csv": to_csv(runs)}
    return write_report(Path(out), pair[0], texts)


def _about(run: Recorded) -> dict[str, str]:
    """Return a run's line in the table of runs."""
    task = run.config.task
    return {
        "name": run.name,
        "algorithm": run.config.method.algorithm,
        "task": f"{task.title}, {task.kind}",
        "step": f"{run.step:,}",
        "took": duration(run.seconds),
        "hardware": hardware(run.environment),
    }


def _measured(runs: Sequence[Recorded]) -> list[dict[str, Any]]:
    """Return the table of evaluations: a group per evaluated task, with a line per run and metric."""
    groups: dict[str, list[dict[str, str]]] = {}
    for run in runs:
        for evaluation in run.evaluations:
            what = measured_on(evaluation)
            made = f"{evaluation.config.adaptation}, after {evaluation.step:,} outer steps, seed {evaluation.seed}"
            for number, (name, measured) in enumerate(evaluation.result.measures().items()):
                line = {
                    "run": "" if number else run.name,  # once per evaluation
                    "adaptation": "" if number else made,
                    "mode": label_of(name).name,
                    "accuracy": str(measured),
                    "published": evaluation.published_text(name),
                    "episodes": f"{measured.episodes:,}",
                }
                groups.setdefault(what, []).append(line)
    return [{"what": what, "lines": lines} for what, lines in groups.items()]


def draw_runs(runs: Sequence[Recorded], *, dark: bool = False) -> bytes:
    """Draw the monitored accuracy (or error) of every run by outer step and by training time.

    Curves are on validation classes; thin ones are on training classes, for runs without validation classes.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    ink = DARK if dark else LIGHT
    figure = Figure(figsize=(9, 8), dpi=DPI, facecolor=ink.paper, layout="constrained")
    by_step, by_time = figure.subplots(2, 1)
    for number, run in enumerate(runs):
        _draw_run(by_step, by_time, run, number, dark)
    functions = runs[0].config.task.regression
    modes = sorted({label_of(_monitored(run)[1]).name for run in runs})
    what = "mean squared error" if functions else f"{' or '.join(modes)} accuracy, percent"
    _label_axes(by_step, _title(runs), "outer step", what, ink)
    _label_axes(by_time, "By time of training", "minutes", what, ink)
    by_step.xaxis.set_major_formatter(lambda value, position: f"{value:,.0f}")
    by_step.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = by_step.get_legend_handles_labels()
    if handles:
        columns = min(3, len(handles))
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, labelcolor=ink.text)
    return png_of(figure, ink)


def _draw_run(by_step: Axes, by_time: Axes, run: Recorded, number: int, dark: bool) -> None:
    """Draw the curves of one run."""
    split, mode = _monitored(run)
    times = 1 if run.config.task.regression else 100
    lines = [line for line in run.metrics if {f"{split}_{mode}", f"{split}_{mode}_ci95"} <= line.keys()]
    values = [times * line[f"{split}_{mode}"] for line in lines]
    margins = [times * line[f"{split}_{mode}_ci95"] for line in lines]
    low = [value - margin for value, margin in zip(values, margins, strict=True)]
    high = [value + margin for value, margin in zip(values, margins, strict=True)]
    color = (COLORS_ON_DARK if dark else COLORS)[number % len(COLORS)]
    look: dict[str, Any] = {
        "linestyle": DASHES[number // len(COLORS) % len(DASHES)],
        "linewidth": 1.8 if split == "val" else 1.0,
        "marker": "o" if len(lines) == 1 else "",
    }
    minutes = [line.get("seconds", 0) / 60 for line in lines]
    for axis, along in ((by_step, [line["step"] for line in lines]), (by_time, minutes)):
        axis.plot(along, values, color=color, label=run.name, **look)
        axis.fill_between(along, low, high, color=color, alpha=0.15, linewidth=0)


def _monitored(run: Recorded) -> tuple[str, str]:
    """Return the split to show and the metric that selects a run's best checkpoint."""
    transductive = run.config.evaluation.transductive
    mode = "mse" if run.config.task.regression else "transductive" if transductive else "inductive"
    return "val" if any(f"val_{mode}" in line for line in run.metrics) else "train", mode


def _title(runs: Sequence[Recorded]) -> str:
    """Name the classes or tasks that the curves are measured on."""
    splits, members = {_monitored(run)[0] for run in runs}, runs[0].config.task.members
    if len(splits) == 2:
        return f"On validation {members}; thin lines: on training {members}, without validation {members}"
    return f"On {SPLITS[splits.pop()]} {members}"


def _label_axes(axis: Axes, title: str, along: str, what: str, ink: Palette) -> None:
    """Style the axes and set title and labels."""
    style(axis, ink)
    axis.set_title(title, loc="left", fontsize=12, color=ink.text)
    axis.set_xlabel(along)
    axis.set_ylabel(what)
    axis.set_xlim(left=0)
