"""Figures of fitted functions: curves before and after adaptation, and the error by inner step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchreptile.experiments.reports.plot_style import DARK, DPI, LIGHT, Palette, png_of, style
from torchreptile.training.evaluation.function_fits import Fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 2


def draw_functions(fitted: Fitted, shown: int = 4, *, dark: bool = False) -> bytes:
    """Draw functions with their support points and the predictions before and after adaptation.

    Functions of one input are drawn as curves; with more inputs, predictions are plotted against true values. With
    several targets, the first is drawn.

    Args:
        fitted: the fitted functions.
        shown: number of functions to draw.
        dark: use light ink on dark paper.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    ink, rows = DARK if dark else LIGHT, -(-shown // COLUMNS)
    figure = Figure(figsize=(8, 0.6 + 2.6 * rows), dpi=DPI, facecolor=ink.paper, layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    curves = fitted.episodes.query_x.shape[2] == 1
    for task, axis in enumerate(axes[:shown]):
        (_curve if curves else _against_truth)(axis, fitted, task, ink)
        style(axis, ink)
    for axis in axes[shown:]:
        axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=11, labelcolor=ink.text
    )
    return png_of(figure, ink)


def draw_by_step(fitted: dict[str, Fitted], *, dark: bool = False) -> bytes:
    """Draw the mean squared error by inner step with its 95% interval, one line per entry of ``fitted``.

    Args:
        fitted: the fitted functions by the line's name.
        dark: use light ink on dark paper.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    ink = DARK if dark else LIGHT
    figure = Figure(figsize=(8, 3.4), dpi=DPI, facecolor=ink.paper, layout="constrained")
    axis = figure.subplots()
    for (name, fit), color, marker in zip(fitted.items(), (ink.blue, ink.orange, ink.text), "os^", strict=False):
        steps, means = range(len(fit.by_step)), [error.mean for error in fit.by_step]
        margins = [error.ci95 for error in fit.by_step]
        axis.plot(steps, means, color=color, marker=marker, markersize=3.5, linewidth=1.8, label=name)
        low = [max(m - margin, 0.05 * m) for m, margin in zip(means, margins, strict=True)]  # the axis is logarithmic
        axis.fill_between(
            steps,
            low,
            [m + margin for m, margin in zip(means, margins, strict=True)],
            color=color,
            alpha=0.2,
            linewidth=0,
        )
    axis.set_yscale("log")
    axis.set_xlabel("inner steps")
    axis.set_ylabel("mean squared error")
    style(axis, ink)
    if len(fitted) > 1:
        axis.legend(frameon=False, fontsize=11, labelcolor=ink.text)
    return png_of(figure, ink)


def _curve(axis: Axes, fitted: Fitted, task: int, ink: Palette) -> None:
    """Draw a function of one input as curves."""
    its, x = fitted.episodes, fitted.episodes.query_x[task, :, 0]
    order = x.argsort()
    for values, color, line, label in (
        (its.query_y, ink.text, "-", "truth"),
        (fitted.before, ink.orange, "--", "before adaptation"),
        (fitted.after, ink.blue, "-", "after"),
    ):
        axis.plot(x[order], values[task, order, 0], color=color, linestyle=line, linewidth=1.6, label=label)
    axis.plot(
        its.support_x[task, :, 0], its.support_y[task, :, 0], "o", color=ink.text, markersize=5, label="known points"
    )


def _against_truth(axis: Axes, fitted: Fitted, task: int, ink: Palette) -> None:
    """Plot predictions against true values."""
    truth = fitted.episodes.query_y[task, :, 0]
    ends = [float(truth.min()), float(truth.max())]
    axis.plot(ends, ends, color=ink.text, linewidth=1.2, label="truth")
    axis.plot(truth, fitted.before[task, :, 0], "x", color=ink.orange, markersize=5, label="before adaptation")
    axis.plot(truth, fitted.after[task, :, 0], "o", color=ink.blue, markersize=4, label="after")
    axis.set_xlabel("truth")
    axis.set_ylabel("prediction")
