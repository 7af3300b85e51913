"""Figure of a comparison: the accuracy of every algorithm in both modes, with its interval."""

from __future__ import annotations

from torchreptile.experiments.comparison import Comparison
from torchreptile.experiments.reports.plot_style import DPI, LIGHT, png_of
from torchreptile.training.evaluation.labels import MODES, label_of

OFFSET = 0.14  # vertical distance of the two modes from the centre of their row


def draw_comparison(comparison: Comparison) -> bytes:
    """Draw accuracies (or errors) with 95% intervals, best first, with each algorithm's time per task and parameters.

    A mode that does not apply to an algorithm has no point. Extra metrics are shown only in the table.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    ink = LIGHT
    first = comparison.trained[0].evaluation
    task = first.config.task
    modes, times = (("mse",), 1) if task.regression else (MODES, 100)
    sign = 1 if task.regression else -1  # the smallest error, or the largest accuracy, on top
    rows = sorted(
        comparison.rows(), key=lambda row: min(sign * row.accuracy[mode] for mode in modes if mode in row.accuracy)
    )
    figure = Figure(figsize=(8, 1.9 + 0.5 * len(rows)), dpi=DPI, facecolor=ink.paper, layout="constrained")
    axes = figure.add_subplot()
    for mode, color, marker, offset in zip(modes, (ink.blue, ink.orange), "os", (-OFFSET, OFFSET), strict=False):
        places = [(place + offset, row) for place, row in enumerate(rows) if mode in row.accuracy]
        if not places:
            continue
        axes.errorbar(
            [times * row.accuracy[mode] for _, row in places],
            [place for place, _ in places],
            xerr=[times * row.ci95[mode] for _, row in places],
            color=color,
            marker=marker,
            linestyle="none",
            capsize=3,
            label=label_of(mode).name,
        )
    for place, row in enumerate(rows):
        parameters = f"{row.parameters:,} parameters" if row.parameters else "no meta-training"
        axes.text(
            1.02,
            place,
            f"{row.adapt_ms:,.1f} ms per task\n{parameters}",
            transform=axes.get_yaxis_transform(),
            va="center",
            color=ink.text,
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [row.algorithm for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    what = "mean squared error" if task.regression else "accuracy in percent"
    axes.set_xlabel(f"{what}, 95% CI over episodes")
    axes.grid(axis="x", color=ink.faint, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        f"{task.title}, {task.kind}, {first.split} {task.members} ({task.split_scheme})\n{comparison.budget}, "
        f"{first.config.evaluation.eval_episodes:,} episodes, {rows[0].seeds} seed{'s' * (rows[0].seeds > 1)}",
        loc="left",
        fontsize=11,
        color=ink.text,
    )
    figure.legend(loc="outside lower right", ncols=2, frameon=False, fontsize=10, labelcolor=ink.text)
    return png_of(figure, ink)
