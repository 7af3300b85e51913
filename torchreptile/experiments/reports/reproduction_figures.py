"""Figures of reproduced experiments."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from torchreptile.experiments.reports.plot_style import DPI, LIGHT, png_of, style
from torchreptile.experiments.reports.reproduction_tables import place, share_in_words, sweep_measured
from torchreptile.experiments.reproduce.experiment import Experiment, Kind
from torchreptile.experiments.reproduce.findings import COMPARED, sweep
from torchreptile.experiments.reproduce.gradient_combinations import LARGEST
from torchreptile.experiments.reproduce.minibatch_overlap import DRAWN, ELSEWHERE, METHODS, NAMES, SWEEPS, usual
from torchreptile.experiments.reproduce.result import Reproduced, TrainedArm, pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
RESULT_CHUNK = "result"

DRAWING = 2  # version of the figures' design; `make tables` redraws every figure when it changes


def draw_reproduced(reproduced: Reproduced, experiment: Experiment) -> bytes:
    """Draw the figure of an experiment.

    Returns:
        A PNG file that contains a fingerprint of the result, see :func:`is_drawn`.
    """
    return png_of(figure_of(reproduced, experiment), LIGHT, {RESULT_CHUNK: _fingerprint(reproduced, experiment)})


def figure_of(reproduced: Reproduced, experiment: Experiment) -> Figure:
    """Return the matplotlib figure of an experiment."""
    return _DRAWN[experiment.kind](reproduced, experiment)


def is_drawn(picture: Path, reproduced: Reproduced, experiment: Experiment) -> bool:
    """Return whether ``picture`` is an up-to-date figure of this result."""
    try:
        with Image.open(picture) as image:
            return bool(image.info.get(RESULT_CHUNK) == _fingerprint(reproduced, experiment))
    except OSError:
        return False


def _fingerprint(reproduced: Reproduced, experiment: Experiment) -> str:
    """Hash everything a figure depends on; settings are left out, so that adding one does not change it."""
    trainings = [trained.content() | {"settings": None} for trained in reproduced.trainings]
    published = [str(cell.published) for trained in reproduced.trainings for cell in trained.cells]
    content = [reproduced.name, reproduced.share, trainings, experiment.what, published, DRAWING]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, facecolor=LIGHT.paper, layout="constrained")


def _titled(figure: Figure, reproduced: Reproduced, title: str, note: str = "") -> None:
    """Set a title with two lines: the experiment, and its seeds and training budget."""
    seeds = len(reproduced.seeds)
    notes = [f"{seeds} seed{'s' * (seeds > 1)}", *([note] if note else [])]
    notes += [share] if (share := share_in_words(reproduced)) else []
    figure.suptitle(f"{title}\n{'; '.join(notes)}", x=0.01, ha="left", fontsize=11, color=LIGHT.text)


def _band(reproduced: Reproduced) -> str:
    """Explain the bands; empty for a single seed, which has none."""
    return "bands from the lowest to the highest seed" if len(reproduced.seeds) > 1 else ""


def _line_over_seeds(
    axes: Axes, x: list[int], each: list[list[float]], color: str, marker: str, label: str, linestyle: str = "-"
) -> None:
    """Draw the mean over seeds, and a band from the lowest to the highest seed."""
    means, low, high = ([of(values) for values in zip(*each, strict=True)] for of in (statistics.fmean, min, max))
    axes.plot(x, means, linestyle, color=color, marker=marker, markersize=3.5, linewidth=1.7, label=label)
    if len(each) > 1:
        axes.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)


def _row(reproduced: Reproduced, experiment: Experiment) -> Figure:
    """Draw every cell and its published number as points with intervals."""
    cells = [(cell, spread) for _, cell, spread in reproduced.spreads()]
    figure = _figure(8, 1.9 + 0.42 * len(cells))
    axes = figure.subplots()
    here = [(number, (100 * spread.mean, 100 * spread.ci95)) for number, (_, spread) in enumerate(cells)]
    found = [(number, cell.published) for number, (cell, _) in enumerate(cells)]
    published = [(number, (cell.accuracy, cell.margin or 0.0)) for number, cell in found if cell is not None]
    for what, marker, colour, drawn in (("here", "o", COLOURS[0], here), ("published", "D", COLOURS[1], published)):
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
            label=f"{what}, {'95% CI' if what == 'here' else '± as printed'}",
        )
    several = len({cell.episodes for cell, _ in cells}) > 1
    axes.set_yticks(
        range(len(cells)),
        [place(cell) + (f",\n{cell.episodes:,} episodes" if several else "") for cell, _ in cells],
    )
    axes.set_ylim(len(cells) - 0.5, -0.5)
    axes.set_xlabel("accuracy in percent")
    style(axes, LIGHT)
    # Outside: between the rows it would look like another measurement.
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=10, labelcolor=LIGHT.text)
    _titled(figure, reproduced, experiment.what, "published: test classes")
    return figure


def _combinations(reproduced: Reproduced, experiment: Experiment) -> Figure:
    """Draw accuracy by outer step for every combination, at full scale and enlarged."""
    figure = _figure(11.5, 5)
    full, enlarged = figure.subplots(1, 2, width_ratios=(1, 2.4))
    key, kinds, lowest = f"val_{COMPARED}", {"last": (":", "s"), "mean": ("--", "^"), "sum": ("-", "o")}, 100.0
    for seeds in reproduced.arms().values():
        what, _, gradients = seeds[0].arm.partition("-of-")
        line, marker = kinds[what]
        curves = [{point["step"]: 100 * point[key] for point in trained.curve if key in point} for trained in seeds]
        steps = [step for step in curves[0] if all(step in curve for curve in curves)]
        each = [[curve[step] for step in steps] for curve in curves]
        if gradients != "1":
            lowest = min(lowest, *(min(values) for values in each))
        for axes in (full, enlarged):
            colour = COLOURS[int(gradients) - 1]
            _line_over_seeds(axes, steps, each, color=colour, marker=marker, label=seeds[0].label, linestyle=line)
    for axes in (full, enlarged):
        axes.set_xlabel("outer step")
        axes.xaxis.set_major_formatter(lambda value, position: f"{value:,.0f}")
        style(axes, LIGHT)
    full.locator_params(axis="x", nbins=3)
    full.set_ylabel("inductive accuracy in percent,\nvalidation classes")
    enlarged.set_ylim(lowest - 1, None)
    enlarged.set_title("enlarged", fontsize=11, loc="left", color=LIGHT.text)
    figure.legend(
        *enlarged.get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=10,
        labelcolor=LIGHT.text,
    )  # fmt: skip
    title = f"Combinations of the first {LARGEST} inner gradients, 5-shot 5-way Omniglot"
    episodes = reproduced.trainings[0].config.run.monitor_episodes
    note = f"the same {episodes} episodes at every point"
    _titled(figure, reproduced, title, "; ".join(filter(None, [note, _band(reproduced)])))
    return figure


def _overlap(reproduced: Reproduced, experiment: Experiment) -> Figure:
    """Draw a panel for each swept setting."""
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
        elsewhere = "".join(f"\n({value:g} {NAMES[name]})" for name, value in ELSEWHERE.get(setting, {}).items())
        axes.set_xlabel(NAMES[setting] + elsewhere)
        if setting == "outer_step_size":
            axes.set_xscale("log", base=2)
            axes.set_xticks(SWEEPS[setting], [f"{value:g}" for value in SWEEPS[setting]])
        style(axes, LIGHT)
    panels[0].set_ylabel("accuracy in percent")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=10, labelcolor=LIGHT.text
    )
    title = "Overlapping mini-batches, 5-shot 5-way Omniglot: sweeps of one setting, with the others at the grey lines"
    _titled(figure, reproduced, title, f"{sweep_measured(reproduced)}; bars: 95% CI over episodes")
    return figure


def _waves(reproduced: Reproduced, experiment: Experiment) -> Figure:
    """Draw waves fitted by each arm's first training, and the error by inner step over all seeds."""
    arms = list(reproduced.arms().values())
    shown = min(len(seeds[0].waves) for seeds in arms)
    figure = _figure(11, 3.4 + 2.4 * shown)
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(0.72 * shown, 1))
    _fits(parts[0, 0], [seeds[0] for seeds in arms], shown)
    _errors_by_step(parts[1, 0], arms)
    title = (
        "Sine waves from 10 points: two fitted waves, and the error by inner step (over other waves than in the table)"
    )
    _titled(figure, reproduced, title, "bands: 95% CI over waves")
    return figure


def _fits(part: SubFigure, trainings: Sequence[TrainedArm], shown: int) -> None:
    """Draw a column per training and a row per wave: predictions before and after adaptation, and the truth."""
    panels = part.subplots(shown, len(trainings), sharex=True, sharey=True, squeeze=False)
    for column, trained in enumerate(trainings):
        for row, wave in enumerate(trained.waves[:shown]):
            axes = panels[row][column]
            for values, colour, line, label in (
                (wave.truth, LIGHT.text, "-", "truth"),
                (wave.before, COLOURS[1], "--", "before"),
                (wave.after, COLOURS[0], "-", f"after {len(trained.by_step) - 1} inner steps"),
            ):
                axes.plot(wave.x, values, line, color=colour, linewidth=1.6, label=label)
            axes.plot(wave.known_x, wave.known_y, "o", color=LIGHT.text, markersize=4, label="known points")
            style(axes, LIGHT)
        panels[0][column].set_title(trained.label, fontsize=11, color=LIGHT.text)
    handles, labels = panels[0][0].get_legend_handles_labels()
    part.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, labelcolor=LIGHT.text)


def _errors_by_step(part: SubFigure, arms: Sequence[Sequence[TrainedArm]]) -> None:
    """Draw a line per arm: the mean squared error over all seeds' waves, with its interval."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes = part.subplots()
    for seeds, colour, marker in zip(arms, COLOURS, "o^sD", strict=False):
        spreads = [pooled(errors) for errors in zip(*(trained.by_step for trained in seeds), strict=True)]
        steps = list(range(len(spreads)))
        means, label = [mean for mean, _ in spreads], seeds[0].label
        axes.plot(steps, means, color=colour, marker=marker, markersize=3.5, label=label)
        # The axis is logarithmic: an interval that reaches zero ends at a twentieth of the mean.
        low = [max(mean - margin, 0.05 * mean) for mean, margin in spreads]
        axes.fill_between(steps, low, [sum(spread) for spread in spreads], color=colour, alpha=0.18, linewidth=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("inner steps")
    axes.set_ylabel("mean squared error")
    style(axes, LIGHT)
    part.legend(loc="outside right center", frameon=False, fontsize=10, labelcolor=LIGHT.text)


_DRAWN: dict[Kind, Callable[[Reproduced, Experiment], Figure]] = {
    "row": _row,
    "combinations": _combinations,
    "overlap": _overlap,
    "waves": _waves,
}
