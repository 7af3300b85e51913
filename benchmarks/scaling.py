"""Time of an outer step by number of tasks, image size and number of processes.

    python benchmarks/scaling.py [--execution grouped] [--rounds 15] [--out scaling.json]

Task numbers and image sizes take turns in one process; medians are printed. For processes, an outer step of ten tasks
is timed in one single-threaded process and in two, three times in turn, with the median over all steps.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.config import Config
from torchreptile.core.distributed.launcher import free_port
from torchreptile.core.distributed.process_group import joined
from torchreptile.core.environment import environment
from torchreptile.experiments.benchmark.workloads import Candidate, outer_steps, random_store
from torchreptile.training.outer_step import OuterStep

TASKS = (1, 2, 5, 10, 20, 40)
SIZES = (28, 42, 56, 84)
PROCESSES = (1, 2)
SHARED_TASKS = 10
WARM_UP = 3
REPEATS = 3


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    execution: str = "grouped"
    rounds: int = 15
    out: Path = Path("scaling.json")
    as_worker: bool = False
    """Run as one of several processes; used by the script itself."""


def in_turn(works: dict[int, Any], rounds: int) -> dict[int, float]:
    """Time the functions in turn; return the median ms of each."""
    for work in works.values():
        for _ in range(WARM_UP):
            work()
    taken: dict[int, list[float]] = {key: [] for key in works}
    for _ in range(rounds):
        for key, work in works.items():
            start = time.perf_counter()
            work()
            taken[key].append(1000 * (time.perf_counter() - start))
    return {key: round(statistics.median(times), 2) for key, times in taken.items()}


def worker(settings: Settings) -> None:
    """Run outer steps together with the other processes; rank 0 prints its times in ms."""
    torch.set_num_threads(1)
    config, shape, device = Config().replace(execution=settings.execution), (1, 28, 28), torch.device("cpu")
    with joined() as processes:
        algorithm = build_algorithm(config, shape, device, processes=processes)
        sampler = algorithm.sampler(random_store(shape, device))
        outer = config.replace(meta_batch=SHARED_TASKS).outer
        step = OuterStep(algorithm, sampler, outer, torch.Generator().manual_seed(0), record=False)
        state = algorithm.begin(seed=0)
        times = []
        for _ in range(WARM_UP + settings.rounds):
            start = time.perf_counter()
            state, _ = step(state, 0.5)
            processes.agree(False, 0.0)
            times.append(1000 * (time.perf_counter() - start))
        if processes.rank == 0:
            print(json.dumps(times[WARM_UP:]))


def shared(settings: Settings, count: int) -> list[float]:
    """Return the times in ms of outer steps shared by ``count`` single-threaded processes."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    words = [
        sys.executable,
        __file__,
        "--as-worker",
        "--execution",
        settings.execution,
        "--rounds",
        str(settings.rounds),
    ]
    started = [
        subprocess.Popen(
            words,
            env={**os.environ, **meeting, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    outputs = [process.communicate()[0] for process in started]
    times: list[float] = json.loads(outputs[0])
    return times


def main(settings: Settings) -> None:
    """Measure, print and save all three."""
    if settings.as_worker:
        return worker(settings)
    cpu, candidate = torch.device("cpu"), Candidate(settings.execution)
    result: dict[str, Any] = {"environment": environment(), "execution": settings.execution, "n": settings.rounds}
    by_tasks = {n: outer_steps(Config().replace(meta_batch=n), (1, 28, 28), candidate, cpu) for n in TASKS}
    result["ms per outer step by tasks, 28 x 28"] = in_turn(by_tasks, settings.rounds)
    by_size = {side: outer_steps(Config(), (1, side, side), candidate, cpu) for side in SIZES}
    result["ms per outer step of 5 tasks by image side"] = in_turn(by_size, settings.rounds)
    taken: dict[int, list[float]] = {count: [] for count in PROCESSES}
    for _ in range(REPEATS):
        for count in PROCESSES:
            taken[count] += shared(settings, count)
    medians = {count: round(statistics.median(times), 2) for count, times in taken.items()}
    result["ms per outer step of 10 tasks by single-threaded processes"] = medians
    result["throughput of two over one"] = round(medians[1] / medians[2], 2)
    print(json.dumps(result, indent=2))
    settings.out.write_text(json.dumps(result, indent=2) + "\n")
    return None


if __name__ == "__main__":
    main(tyro.cli(Settings))
