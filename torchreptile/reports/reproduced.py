"""A reproduced experiment as a table and as a picture, beside what was published."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torchreptile.data.splits import load_functions
from torchreptile.fitting import fit_functions
from torchreptile.learned import load_learned
from torchreptile.progress import duration
from torchreptile.reports.curves import DPI, LIGHT, style
from torchreptile.reports.tables import hardware, table
from torchreptile.reproduce.combinations import LARGEST
from torchreptile.reproduce.experiment import Experiment, Kind
from torchreptile.reproduce.findings import COMPARED, findings, sweep
from torchreptile.reproduce.overlap import DRAWN, METHODS, SWEEPS, usual
from torchreptile.reproduce.reproduced import Cell, Reproduced, Spread
from torchreptile.results import ERRORS, Accuracy, SquaredError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
SHARED, APART = "transductive", "non_transductive"
MODES = {SHARED: "transductive", APART: "not transductive"}
SPLITS = {"test": "test", "val": "validation", "train": "training"}
NAMES = {
    "inner_steps": "inner steps",
    "inner_batch": "images in an inner mini-batch",
    "outer_step_size": "outer step size",
}
SHOWN_WAVES = 2


def to_markdown(reproduced: Reproduced, experiment: Experiment) -> str:
    """The measurements beside the published ones, what was found, and how it was done."""
    head = [f"# {experiment.name}\n", f"{experiment.what}. {experiment.source}.\n"]
    return "\n".join([*head, measured_table(reproduced), summary(reproduced, experiment)])


def summary(reproduced: Reproduced, experiment: Experiment) -> str:
    """What was found, as a table, and how it was done, as a list."""
    rows = [(its.what, its.verdict, its.numbers) for its in findings(reproduced, experiment.kind)]
    return "\n".join([*([table(("as published", "here", ""), rows)] if rows else []), how(reproduced)])


def how(reproduced: Reproduced) -> str:
    """The command, the share of the published training, time and hardware, as a list."""
    taken = reproduced.taken
    seeds = sorted({one.seed for one in taken})
    steps = sorted({one.outer_steps for one in taken})
    lines = [
        *(f"`{command}`" for command in reproduced.commands),
        f"outer steps: {' or '.join(f'{its:,}' for its in steps)}"
        + ("" if reproduced.share == 1 else f", {share_in_words(reproduced.share)}"),
        f"seeds: {', '.join(map(str, seeds))}; {len(taken)} training{'s' * (len(taken) > 1)}, "
        f"{duration(sum(one.seconds for one in taken))} of training in all",
        *dict.fromkeys(
            f"{hardware(one.environment)}, {one.environment['threads']} thread{'s' * (one.environment['threads'] > 1)} "
            f"per training, torch {one.environment['torch']}"
            for one in taken
        ),
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def share_in_words(share: float) -> str:
    """Of the published outer steps, for people."""
    return f"{100 * share:g}% of the published outer steps, annealed to the end"


def measured_table(reproduced: Reproduced) -> str:
    """A line for every cell: here, over all seeds, and published."""
    return table(*measured_rows(reproduced))


def measured_rows(reproduced: Reproduced) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The head of that table, and its lines."""
    several = any(spread.seeds > 1 for _, _, spread in reproduced.spreads())
    any_published = any(cell.published for _, cell, _ in reproduced.spreads())
    rows: list[tuple[str, ...]] = []
    beside: tuple[str, ...]
    for taken, cell, spread in reproduced.spreads():
        published = cell.published
        between = [in_words(cell, spread.between)] if several else []
        if published is not None:
            beside = (str(published), f"{100 * spread.mean - published.accuracy:+.2f}")
        else:
            beside = ("", "") if any_published else ()
        counts = (f"{cell.episodes:,}", str(spread.seeds))
        rows.append((taken.label, place(cell), shown(cell, spread), *between, *beside, *counts))
    head = ["", "measured", "here, 95% CI", *(["sd between seeds"] if several else [])]
    head += ["published (test classes)", "difference"] if any_published else []
    return (*head, "episodes", "seeds"), rows


def place(cell: Cell) -> str:
    """Which cell, for people."""
    if cell.measure in ERRORS:
        return f"mean squared error {ERRORS[cell.measure]}"
    return f"{cell.way}-way {cell.shots}-shot, {SPLITS[cell.split]} classes, {MODES.get(cell.measure, cell.measure)}"


def shown(cell: Cell, spread: Spread) -> str:
    """Mean and interval: percent, or an error."""
    if cell.measure in ERRORS:
        return str(SquaredError(spread.mean, spread.ci95, cell.episodes))
    return str(Accuracy(spread.mean, spread.ci95, cell.episodes))


def in_words(cell: Cell, value: float | None) -> str:
    """A value without interval."""
    if value is None:
        return "-"
    return f"{value:.2g}" if cell.measure in ERRORS else f"{100 * value:.2f}"


def draw_reproduced(reproduced: Reproduced, experiment: Experiment, folder: Path) -> bytes:
    """The picture of an experiment.

    Args:
        reproduced: what it came to.
        experiment: which.
        folder: of its run folders.

    Returns:
        A PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = _DRAWN[experiment.kind](reproduced, experiment, folder)
    FigureCanvasAgg(figure)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", facecolor=LIGHT.paper)
        return file.getvalue()


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor=LIGHT.paper, layout="constrained")


def _titled(figure: Figure, reproduced: Reproduced, title: str, note: str = "") -> None:
    """A line that says what it is, and one that says of how much training."""
    seeds = len({one.seed for one in reproduced.taken})
    notes = [f"{seeds} seed{'s' * (seeds > 1)}", *([note] if note else [])]
    notes += [] if reproduced.share == 1 else [share_in_words(reproduced.share)]
    figure.suptitle(f"{title}\n{'; '.join(notes)}", x=0.01, ha="left", fontsize=11, color=LIGHT.text)


def _band(reproduced: Reproduced) -> str:
    """What a band is, where there are any."""
    return "bands from the lowest to the highest" if len({one.seed for one in reproduced.taken}) > 1 else ""


def _row(reproduced: Reproduced, experiment: Experiment, folder: Path) -> Figure:
    """Every cell as a point with its interval, and the published one beside it."""
    its = [(cell, spread) for _, cell, spread in reproduced.spreads()]
    figure = _figure(8, 1.7 + 0.42 * len(its))
    axes = figure.subplots()
    here = [(number, (100 * spread.mean, 100 * spread.ci95)) for number, (_, spread) in enumerate(its)]
    beside = [(number, cell.published) for number, (cell, _) in enumerate(its)]
    papers = [(number, (its.accuracy, its.margin or 0.0)) for number, its in beside if its is not None]
    for what, marker, colour, drawn in (("here", "o", COLOURS[0], here), ("published", "D", COLOURS[1], papers)):
        if not drawn:
            continue
        offset = -0.12 if what == "here" else 0.12
        axes.errorbar(
            [point[0] for _, point in drawn],
            [number + offset for number, _ in drawn],
            xerr=[point[1] for _, point in drawn],
            color=colour,
            marker=marker,
            markersize=5,
            linestyle="none",
            capsize=3,
            label=what,
        )
    axes.set_yticks(range(len(its)), [place(cell) for cell, _ in its])
    axes.set_ylim(len(its) - 0.5, -0.5)
    axes.set_xlabel("accuracy in percent, 95% CI")
    style(axes, LIGHT)
    axes.legend(frameon=False, fontsize=10, labelcolor=LIGHT.text)
    _titled(figure, reproduced, experiment.what, "published: test classes")
    return figure


def _combinations(reproduced: Reproduced, experiment: Experiment, folder: Path) -> Figure:
    """Accuracy by outer step: the mean over seeds, the band from the lowest to the highest of them."""
    figure = _figure(8.5, 5)
    axes = figure.subplots()
    key, kinds = f"val_{COMPARED}", {"last": (":", "s"), "mean": ("--", "^"), "sum": ("-", "o")}
    for its in reproduced.arms().values():
        what, _, gradients = its[0].arm.partition("-of-")
        line, marker = kinds[what]
        curves = [[(point["step"], 100 * point[key]) for point in one.curve if key in point] for one in its]
        steps = [step for step, _ in curves[0]]
        each = [[value for _, value in curve] for curve in curves]
        means = [sum(values) / len(values) for values in zip(*each, strict=True)]
        colour = COLOURS[int(gradients) - 1]
        axes.plot(steps, means, line, color=colour, marker=marker, markersize=3.5, linewidth=1.6, label=its[0].label)
        if len(each) > 1:
            low, high = ([end(values) for values in zip(*each, strict=True)] for end in (min, max))
            axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("outer step")
    axes.xaxis.set_major_formatter(lambda value, position: f"{value:,.0f}")
    axes.set_ylabel("accuracy in percent, validation classes,\neach query alone")
    style(axes, LIGHT)
    figure.legend(loc="outside right center", frameon=False, fontsize=10, labelcolor=LIGHT.text)
    title = f"Combinations of the first {LARGEST} inner gradients, 5-shot 5-way Omniglot"
    _titled(figure, reproduced, title, _band(reproduced))
    return figure


def _overlap(reproduced: Reproduced, experiment: Experiment, folder: Path) -> Figure:
    """A panel for each swept setting."""
    figure = _figure(11, 4.4)
    panels = figure.subplots(1, len(SWEEPS), sharey=True)
    for axes, setting in zip(panels, SWEEPS, strict=True):
        lines = sweep(reproduced, setting)
        for (method, colour), marker in zip(zip(METHODS, COLOURS, strict=False), "so^", strict=True):
            for drawn in DRAWN.values():
                points = lines.get(f"{method}, {drawn}", {})
                axes.errorbar(
                    list(points),
                    [100 * spread.mean for spread in points.values()],
                    yerr=[100 * spread.ci95 for spread in points.values()],
                    color=colour,
                    marker=marker,
                    markersize=4.5,
                    linestyle="-" if drawn == "cycling" else "--",
                    linewidth=1.6,
                    capsize=2,
                    label=f"{method}, {drawn}",
                )
        axes.axvline(usual(setting), color=LIGHT.faint, linewidth=5, zorder=0)
        axes.set_xlabel(NAMES[setting])
        if setting == "outer_step_size":
            axes.set_xscale("log", base=2)
            axes.set_xticks(SWEEPS[setting], [f"{value:g}" for value in SWEEPS[setting]])
        style(axes, LIGHT)
    split = SPLITS[reproduced.taken[0].cells[0].split]
    panels[0].set_ylabel(f"accuracy in percent, {split} classes,\neach query alone")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=10, labelcolor=LIGHT.text
    )
    title = "Overlapping mini-batches, 5-shot 5-way Omniglot; each setting swept with the others at the grey line"
    _titled(figure, reproduced, title)
    return figure


def _waves(reproduced: Reproduced, experiment: Experiment, folder: Path) -> Figure:
    """Some waves fitted by each arm's first training, and the error by inner step over all seeds."""
    arms = reproduced.arms()
    figure = _figure(11, 8.2)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.45, 1))
    upper, lower = parts[0, 0], parts[1, 0]
    panels = upper.subplots(SHOWN_WAVES, len(arms), sharex=True, sharey=True, squeeze=False)
    for column, its in enumerate(arms.values()):
        first = its[0]
        run = folder / f"{first.arm}-seed{first.seed}"
        fitted = fit_functions(load_learned(run), load_functions(first.config.task).get("test"), SHOWN_WAVES)
        for row in range(SHOWN_WAVES):
            axes, episodes = panels[row][column], fitted.episodes
            x = episodes.query_x[row, :, 0]
            for values, colour, line, label in (
                (episodes.query_y, LIGHT.text, "-", "truth"),
                (fitted.before, COLOURS[1], "--", "before"),
                (fitted.after, COLOURS[0], "-", f"after {len(fitted.by_step) - 1} inner steps"),
            ):
                axes.plot(x, values[row, :, 0], line, color=colour, linewidth=1.6, label=label)
            axes.plot(
                episodes.support_x[row, :, 0],
                episodes.support_y[row, :, 0],
                "o",
                color=LIGHT.text,
                markersize=4,
                label="known points",
            )
            style(axes, LIGHT)
        panels[0][column].set_title(first.label, fontsize=11, color=LIGHT.text)
    handles, labels = panels[0][0].get_legend_handles_labels()
    upper.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, labelcolor=LIGHT.text)
    axes = lower.subplots()
    for (its, colour), marker in zip(zip(arms.values(), COLOURS, strict=False), "o^sD", strict=False):
        each = [[mean for mean, _ in one.by_step] for one in its]
        means = [sum(values) / len(values) for values in zip(*each, strict=True)]
        steps = range(len(means))
        axes.plot(steps, means, color=colour, marker=marker, markersize=3.5, linewidth=1.8, label=its[0].label)
        low, high = ([end(values) for values in zip(*each, strict=True)] for end in (min, max))
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    axes.set_xlabel("inner steps")
    axes.set_ylabel("mean squared error")
    style(axes, LIGHT)
    lower.legend(loc="outside right center", frameon=False, fontsize=10, labelcolor=LIGHT.text)
    _titled(figure, reproduced, "Sine waves from 10 points", _band(reproduced))
    return figure


_DRAWN: dict[Kind, Callable[[Reproduced, Experiment, Path], Figure]] = {
    "row": _row,
    "combinations": _combinations,
    "overlap": _overlap,
    "waves": _waves,
}
