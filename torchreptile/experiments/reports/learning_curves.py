"""Figure of learning curves: accuracies (or errors) on training and validation classes, and the training loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torchreptile.core.config import Config
from torchreptile.training.evaluation.labels import ERRORS, MODES, label_of
from torchreptile.training.evaluation.published import published_measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from torchreptile.experiments.reports.plot_style import DARK, DPI, LIGHT, Palette, png_of, style

MARKED_UP_TO = 40
"""Largest number of measurements that get markers; with more, markers would overlap."""
NAMES = {"train": "training classes", "val": "validation classes"}
MARKERS = {"train": "o", "val": "s"}


def draw_curves(config: Config, metrics: Sequence[dict[str, Any]], *, dark: bool = False) -> bytes:
    """Draw the learning curves of a run.

    Args:
        config: settings of the run, which select the published accuracies to show.
        metrics: the lines of metrics.jsonl; may be empty.
        dark: use light ink on dark paper.

    Returns:
        A PNG file.

    Example:
        >>> line = {"step": 100, "loss": 0.4, "train_inductive": 0.9, "train_inductive_ci95": 0.02}
        >>> draw_curves(Config(), [line])[1:4]
        b'PNG'
    """
    from matplotlib.figure import Figure

    ink = DARK if dark else LIGHT
    figure = Figure(figsize=(8, 8.4 if metrics else 2.4), dpi=DPI, facecolor=ink.paper, layout="constrained")
    if metrics:
        _fill(figure, config, metrics, ink)
    else:
        figure.text(0.5, 0.5, "no measurements yet", color=ink.text, fontsize=16, ha="center", va="center")
    return png_of(figure, ink)


def _fill(figure: Figure, config: Config, metrics: Sequence[dict[str, Any]], ink: Palette) -> None:
    """Draw a panel per mode or kind of error, one for extra metrics, and one for the loss."""
    measured = {key for line in metrics for key in line}
    known = ("mse", "mse_before") if config.task.regression else MODES
    modes = [mode for mode in known if measured & {f"{split}_{mode}" for split in NAMES}] or list(known)
    extra = _extra_metrics(metrics)
    panels = len(modes) + bool(extra)
    axes = figure.subplots(panels + 1, 1, sharex=True, height_ratios=[1] * panels + [0.75])
    for mode, axis in zip(modes, axes, strict=False):
        _draw_mode(axis, config, metrics, mode, ink)
    if extra:
        _draw_extra_metrics(axes[len(modes)], config, metrics, extra, ink)
    if not config.task.regression:
        # Both modes share a scale, so that their difference is visible.
        low, high = zip(*(axis.get_ylim() for axis in axes[:-1]), strict=True)
        for axis in axes[:-1]:
            axis.set_ylim(min(low), min(max(high), 101))
    loss = axes[-1]
    loss.plot(*_series(metrics, "loss"), color=ink.text, linewidth=_width(metrics), **_marker(metrics, "o"))
    loss.set_ylabel("mean loss")
    loss.set_title("Training loss", loc="left", fontsize=12, color=ink.text)
    loss.set_xlabel("outer step")
    loss.xaxis.set_major_formatter(lambda value, position: f"{value:,.0f}")
    loss.xaxis.get_major_locator().set_params(integer=True)
    loss.set_xlim(left=0, right=1.03 * max(line["step"] for line in metrics))
    highest = max((value for value in _series(metrics, "loss")[1] if math.isfinite(value)), default=1.0)
    loss.set_ylim(0, 1.1 * highest or 1.0)
    for axis in axes:
        style(axis, ink)
    # Above the axes, where it cannot cover a curve.
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=11, labelcolor=ink.text
    )


def _draw_mode(axis: Axes, config: Config, metrics: Sequence[dict[str, Any]], mode: str, ink: Palette) -> None:
    """Draw one mode's accuracy in percent, or one kind of error."""
    task, times = config.task, 1 if config.task.regression else 100
    for split, color in (("train", ink.blue), ("val", ink.orange)):
        key = f"{split}_{mode}"
        steps, means = _series(metrics, key, times)
        if not steps:
            continue
        _, margins = _series(metrics, f"{key}_ci95", times)
        name = NAMES[split].replace("classes", task.members)
        axis.plot(steps, means, color=color, linewidth=_width(metrics), label=name, **_marker(metrics, MARKERS[split]))
        low = [mean - margin for mean, margin in zip(means, margins, strict=True)]
        high = [mean + margin for mean, margin in zip(means, margins, strict=True)]
        label = f"95% CI, {NAMES[split].partition(' ')[0]}"
        if len(steps) > 1:
            axis.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0, label=label)
        else:  # a band over a single point would be invisible
            axis.errorbar(steps, means, yerr=margins, color=color, capsize=5, linestyle="none", label=label)
    cell = published_measure(config.variant, task.dataset, task.way, task.shots, mode)
    if cell is not None:
        axis.axhline(cell.accuracy, color=ink.text, linestyle=(0, (5, 3)), linewidth=1.3)
        axis.text(
            1.01,
            cell.accuracy,
            f"published\n{cell.accuracy:.2f}%\n(test classes)",
            transform=axis.get_yaxis_transform(),
            color=ink.text,
            fontsize=10,
            va="center",
        )
    words = label_of(mode)
    title = f"Error {words.name}" if task.regression else f"{words.name.capitalize()} accuracy ({words.long})"
    axis.set_title(title, loc="left", fontsize=12, color=ink.text)
    axis.set_ylabel("mean squared error" if task.regression else "accuracy (%)")
    if task.regression:
        axis.set_ylim(bottom=0)


def _extra_metrics(metrics: Sequence[dict[str, Any]]) -> list[str]:
    """Return the keys of extra metrics such as "val_presentation_2", on validation classes if there are any."""
    keys = dict.fromkeys(key.removesuffix("_ci95") for line in metrics for key in line if key.endswith("_ci95"))
    own = [key for key in keys if key.partition("_")[2] not in (*MODES, *ERRORS)]
    return [key for key in own if key.startswith("val_")] or own


def _draw_extra_metrics(
    axis: Axes, config: Config, metrics: Sequence[dict[str, Any]], keys: Sequence[str], ink: Palette
) -> None:
    """Draw extra metrics in percent, one line each, with published numbers in the legend."""
    from matplotlib import colormaps

    for number, key in enumerate(keys):
        split, _, name = key.partition("_")
        name = name.replace("_", " ")
        steps, means = _series(metrics, key, 100)
        cell = published_measure(config.variant, config.task.dataset, config.task.way, config.task.shots, name)
        label = name + (f"\n(published {cell.accuracy:.1f}%)" if cell is not None else "")
        color = colormaps["viridis"](0.15 + 0.7 * number / max(1, len(keys) - 1))
        axis.plot(steps, means, color=color, linewidth=_width(metrics), label=label, **_marker(metrics, "o"))
    axis.set_title(f"Accuracy by {keys[0].split('_')[1]}, {NAMES[split]}", loc="left", fontsize=12, color=ink.text)
    axis.set_ylabel("accuracy (%)")
    axis.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9, labelcolor=ink.text, reverse=True
    )


def _series(metrics: Sequence[dict[str, Any]], key: str, times: float = 1) -> tuple[list[int], list[float]]:
    """Return the outer steps at which ``key`` was measured, and its values."""
    lines = [line for line in metrics if key in line]
    return [line["step"] for line in lines], [times * line[key] for line in lines]


def _marker(metrics: Sequence[dict[str, Any]], marker: str) -> dict[str, Any]:
    """Return the marker settings of a line; none for many measurements."""
    return {"marker": marker if len(metrics) <= MARKED_UP_TO else "", "markersize": 4.5}


def _width(metrics: Sequence[dict[str, Any]]) -> float:
    """Return the line width: thinner for many measurements, which make a line jagged."""
    return 1.8 if len(metrics) <= 10 * MARKED_UP_TO else 1.0
