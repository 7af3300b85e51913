"""Benchmark of other libraries, each in its own environment, on the same workload as torchreptile, in one run.

    python benchmarks/peers/run.py --network omniglot --check
    python benchmarks/peers/run.py --network omniglot [--rounds 20] [--threads 2] [--only jax] [--out peers.json]

README.md describes what is compared, and its caveats.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from check import check, make_case
from contestants import CONTESTANTS, PEAK, Contestant
from environments import UnavailableError
from launch import FailedError, Running
from table import summary, table
from work import ADAM_EPS, CHECK_EPS, NETWORKS, PROTOCOLS

from torchreptile.core.environment import environment

PAUSE = 0.05  # seconds between turns, until the last contestant's threads are idle


@dataclass(frozen=True)
class Settings:
    """What to run."""

    network: Literal["omniglot", "mini-imagenet"] = "omniglot"
    rounds: int = 20
    """Turns of each contestant, at least 3."""
    steps: int = 5
    """Outer steps per turn."""
    threads: int = 2
    """Threads of each contestant; if the system supports it, all run on the same number of processors."""
    only: tuple[str, ...] = ("",)
    """Only run contestants with one of these texts in their names."""
    out: Path | None = None
    """File to write the results to as JSON."""
    check: bool = False
    """Only check that all contestants do the same work."""


def keep_to_processors(threads: int) -> str:
    """Confine this process and its children to one processor per thread; return a description for the results."""
    torch.set_num_threads(threads)
    if not hasattr(os, "sched_setaffinity"):
        return "not confined: this system has no processor masks"
    allowed = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, allowed)
    return f"processors {allowed}"


@contextmanager
def case_files(network: str, eps: float) -> Iterator[dict[str, str]]:
    """Write the case of each set of rules to a temporary file; yield the files by rules."""
    with tempfile.TemporaryDirectory() as folder:
        files = {rules: str(Path(folder) / f"{rules}.npz") for rules in PROTOCOLS}
        for rules, file in files.items():
            make_case(network, rules, eps).save(file)
        yield files


def measure(
    contestants: list[Contestant], settings: Settings, cases: dict[str, str]
) -> tuple[dict[Contestant, list[float]], dict[str, str]]:
    """Return the seconds of an outer step in each turn, and the reasons why contestants could not run."""
    running: dict[Contestant, Running] = {}
    refused: dict[str, str] = {}
    with ExitStack() as stack:
        for contestant in (PEAK, *contestants):
            _print_progress(f"warming up {contestant}")
            try:
                started = Running(contestant, settings.network, cases[contestant.rules], settings.threads, warm_up=True)
                running[contestant] = stack.enter_context(started)
            except (UnavailableError, FailedError) as error:
                refused[str(contestant)] = str(error)
        seconds: dict[Contestant, list[float]] = {contestant: [] for contestant in running}
        order = list(running)
        for turn in range(settings.rounds):
            _print_progress(f"round {turn + 1} of {settings.rounds}")
            for contestant in order:
                time.sleep(PAUSE)
                seconds[contestant].append(running[contestant].seconds(settings.steps) / settings.steps)
            order.reverse()  # so that no contestant always follows the same one
    return seconds, refused


def main(settings: Settings) -> int:
    """Check or measure; return the exit code."""
    if settings.rounds < 3 and not settings.check:
        sys.exit(f"rounds is {settings.rounds}; it must be at least 3")
    contestants = [contestant for contestant in CONTESTANTS if any(text in str(contestant) for text in settings.only)]
    if not contestants:
        known = ", ".join(map(str, CONTESTANTS))
        sys.exit(f"only is {' '.join(settings.only)}; one of its words must occur in one of: {known}")
    confined = keep_to_processors(settings.threads)
    with case_files(settings.network, CHECK_EPS if settings.check else ADAM_EPS) as cases:
        if settings.check:
            return 0 if check(contestants, settings.network, cases, settings.threads) else 1
        seconds, refused = measure(contestants, settings, cases)
    peak = statistics.median(seconds.pop(PEAK))
    results = summary(seconds, peak, NETWORKS[settings.network])
    print(table(results, refused))
    if settings.out is not None:
        content: dict[str, Any] = {
            "settings": asdict(settings) | {"out": str(settings.out)},
            "confined": confined,
            "environment": environment(),
            **results,
            "refused": refused,
        }
        settings.out.write_text(json.dumps(content, indent=2) + "\n")
    return 0


def _print_progress(what: str) -> None:
    """Print a line to standard error."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings)))
