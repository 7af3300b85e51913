"""Summary of the timings: medians, quartiles, and ratios to torchreptile under the same rules."""

from __future__ import annotations

import statistics
from typing import Any

from contestants import STANDARD, Contestant
from work import INNER_STEPS, TASKS, Network

from torchreptile.experiments.benchmark.bench import PEAK_SIDE


def summary(seconds: dict[Contestant, list[float]], peak_seconds: float, network: Network) -> dict[str, Any]:
    """Return a summary for JSON.

    Args:
        seconds: seconds of an outer step in each turn, by contestant.
        peak_seconds: median seconds of a product of square matrices.
        network: the network, for its amount of arithmetic.
    """
    peak = 2 * PEAK_SIDE**3 / peak_seconds / 1e9
    medians = {contestant: statistics.median(turns) for contestant, turns in seconds.items()}
    rows: list[dict[str, Any]] = [
        {
            "name": str(contestant),
            "family": contestant.family,
            "rules": contestant.rules,
            "outer_step_ms": 1000 * medians[contestant],
            "quartiles_ms": [1000 * quartile for quartile in statistics.quantiles(turns, n=4)[::2]],
            "task_step_ms": 1000 * medians[contestant] / (TASKS * INNER_STEPS),
            "peak_share": network.outer_step_gflop / medians[contestant] / peak,
            "times_ours": _ratio(medians, contestant),
            "turns_ms": [1000 * turn for turn in turns],
        }
        for contestant, turns in seconds.items()
    ]
    rows.sort(key=lambda row: row["outer_step_ms"])
    return {"outer_step_gflop": network.outer_step_gflop, "fp32_peak_gflops": peak, "contestants": rows}


def _ratio(medians: dict[Contestant, float], contestant: Contestant) -> float | None:
    """Return a contestant's time relative to torchreptile's default, if that was measured."""
    standard = medians.get(STANDARD[contestant.rules])
    return medians[contestant] / standard if standard else None


def best_of_each(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Return the fastest variant by family and rules; ``rows`` must be sorted, fastest first."""
    best: dict[tuple[str, str], str] = {}
    for row in rows:
        best.setdefault((row["family"], row["rules"]), row["name"])
    return best


def table(results: dict[str, Any], refused: dict[str, str]) -> str:
    """Format the results; a star marks the fastest variant of each family."""
    stars = set(best_of_each(results["contestants"]).values())
    lines = [
        f"fp32 matrix peak in the same run: {results['fp32_peak_gflops']:.0f} GFLOP/s",
        f"arithmetic of an outer step: {results['outer_step_gflop']:.2f} GFLOP",
        "",
        f"{'contestant':45}   {'ms per outer step':>17} {'quartiles':>17} {'of peak':>8} {'x ours':>7}",
    ]
    for row in results["contestants"]:
        low, high = row["quartiles_ms"]
        ratio = f"{row['times_ours']:.2f}" if row["times_ours"] else "-"
        star = "*" if row["name"] in stars else " "
        lines.append(
            f"{row['name']:45} {star} {row['outer_step_ms']:17.1f} {f'{low:.1f} - {high:.1f}':>17} "
            f"{row['peak_share']:8.0%} {ratio:>7}"
        )
    lines += [f"{name:45}   unavailable: {why}" for name, why in refused.items()]
    return "\n".join(lines)
