"""Figure of a benchmark: the time of an outer step by candidate, fastest first."""

from __future__ import annotations

from torchreptile.experiments.benchmark.bench import Bench
from torchreptile.experiments.benchmark.workloads import NAIVE
from torchreptile.experiments.reports.plot_style import DPI, LIGHT, png_of


def draw_bench(bench: Bench) -> bytes:
    """Draw the ms per outer step as bars with quartiles, labelled with speed-up and share of the peak.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    ink, timings = LIGHT, bench.timings
    figure = Figure(figsize=(8, 1.6 + 0.42 * len(timings)), dpi=DPI, facecolor=ink.paper, layout="constrained")
    axes = figure.add_subplot()
    places = range(len(timings))
    times = [timing.outer_step_ms for timing in timings]
    spread = [
        [timing.outer_step_ms - timing.quartiles_ms[0] for timing in timings],
        [timing.quartiles_ms[1] - timing.outer_step_ms for timing in timings],
    ]
    colours = [ink.orange if timing.candidate.execution == NAIVE else ink.blue for timing in timings]
    axes.barh(places, times, xerr=spread, color=colours, ecolor=ink.text, capsize=2, height=0.65)
    for place, timing in zip(places, timings, strict=True):
        speedup = f"{timing.speedup:.1f}x   " if timing.speedup else ""
        axes.text(
            timing.quartiles_ms[1] + max(times) * 0.015,
            place,
            f"{timing.outer_step_ms:.1f} ms   {speedup}{100 * timing.peak_share:.0f}% of peak",
            va="center",
            color=ink.text,
            fontsize=9,
        )
    axes.set_yticks(places, [str(timing.candidate) for timing in timings])
    axes.invert_yaxis()
    axes.set_xlim(0, max(timing.quartiles_ms[1] for timing in timings) * 1.45)
    axes.set_xlabel("ms per outer step (median, quartiles)")
    channels, height, width = bench.image_shape
    outer, inner = bench.config.outer, bench.config.inner
    axes.set_title(
        f"{outer.meta_batch} tasks x {inner.inner_steps} inner steps of {inner.inner_batch} images "
        f"({channels} x {height} x {width})\n{bench.environment['gpu'] or bench.environment['processor']}, "
        f"{bench.environment['threads']} threads, torch {bench.environment['torch']}",
        fontsize=10,
        color=ink.text,
    )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return png_of(figure, ink)
