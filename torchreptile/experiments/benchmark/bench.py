"""How fast this machine meta-trains: every execution beside the loop that people write by hand, in one run.

Each candidate does whole outer steps, everything included: sampling, inner loops, optimiser, outer update.
They take turns, after warm-up, so that whatever else the machine does meets all of them alike; medians count.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from torchreptile.core.config import Config
from torchreptile.core.device import keep_freed_memory, precision_of
from torchreptile.core.environment import environment, peak_mib
from torchreptile.core.errors import ConfigError
from torchreptile.experiments.benchmark.workloads import (
    NAIVE,
    Candidate,
    bare_steps,
    naive_outer_steps,
    outer_steps,
    random_store,
)
from torchreptile.models.blueprint import Network, build_network
from torchreptile.models.conv4.network import for_images

EXECUTIONS = ("loop", "grouped", "matmul", "vmap", "compiled", "native")
SHAPES = {"omniglot": (1, 28, 28), "mini-imagenet": (3, 84, 84)}
WARM_UP = 3
PEAK_SIDE = 2048  # of the square matrices whose product shows what the machine can do

_Works = tuple[Callable[[], object], Callable[[], object] | None]


@dataclass(frozen=True)
class Timing:
    """What was measured of one candidate.

    Attributes:
        candidate: which.
        outer_step_ms: median; quartiles beside it.
        task_step_ms: of one inner step of one task.
        images_per_second: seen by inner steps.
        peak_share: of the matrix products' speed measured in the same run, in fp32; 1 is all of it.
        speedup: over the naive loop in the same run; None if that was not run.
        outside: share of the outer step that is not the network's own forward and backward pass: sampling, cutting
            mini-batches, optimiser, outer update, Python; None for the naive loop.
        peak_mib: memory beyond what the imports and the data take, in a process of its own; None if not measured.
    """

    candidate: Candidate
    outer_step_ms: float
    quartiles_ms: tuple[float, float]
    task_step_ms: float
    images_per_second: float
    peak_share: float
    speedup: float | None
    outside: float | None
    peak_mib: float | None


@dataclass(frozen=True)
class Bench:
    """All that was measured.

    Attributes:
        image_shape: (C, H, W) of the random images.
        config: way, tasks, batches and steps of the work.
        rounds: outer steps of each candidate.
        step_gflop: arithmetic of one task-step, forward and backward.
        peak_gflops: the machine's matrix products in fp32, measured in the same run.
        timings: fastest first.
        refused: candidates that cannot run here, and why.
        environment: command, versions, hardware.
    """

    image_shape: tuple[int, int, int]
    config: Config
    rounds: int
    step_gflop: float
    peak_gflops: float
    timings: list[Timing]
    refused: dict[str, str]
    environment: dict[str, Any]

    def to_json(self) -> str:
        """Everything, as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)


def bench(
    config: Config,
    image_shape: tuple[int, int, int],
    candidates: Sequence[Candidate],
    device: torch.device,
    rounds: int = 20,
    memory: bool = True,
    on_progress: Callable[[str], None] = lambda what: None,
    network: Network = for_images,
) -> Bench:
    """Measure ``candidates`` on random images.

    Args:
        config: the work: way, train_shots, inner_batch, inner_steps, meta_batch, optimiser.
        image_shape: (C, H, W).
        candidates: what to compare.
        device: where.
        rounds: outer steps of each, at least 3.
        memory: also measure peak memory, each candidate in a process of its own.
        on_progress: told what is being done.
        network: makes the module, from image shape and way.

    Raises:
        ConfigError: too few rounds, or no candidate can run.
    """
    if rounds < 3:
        raise ConfigError(f"rounds is {rounds}; it must be at least 3")
    keep_freed_memory()
    ready: dict[Candidate, _Works] = {}
    refused: dict[str, str] = {}
    for candidate in candidates:
        on_progress(f"warming up {candidate}")
        try:
            ready[candidate] = _warm(config, image_shape, candidate, device, network)
        except (ConfigError, RuntimeError) as error:
            refused[str(candidate)] = (str(error).splitlines() or [type(error).__name__])[0]
    if not ready:
        raise ConfigError(f"nothing to measure: {refused}")
    a = torch.rand(PEAK_SIDE, PEAK_SIDE, device=device)
    product: list[float] = []
    seconds: dict[Candidate, tuple[list[float], list[float]]] = {candidate: ([], []) for candidate in ready}
    for turn in range(rounds):
        on_progress(f"round {turn + 1} of {rounds}")
        product.append(_seconds(lambda: a @ a, device))
        for candidate, works in ready.items():
            with precision_of(device, candidate.precision):
                for work, taken in zip(works, seconds[candidate], strict=True):
                    if work is not None:
                        taken.append(_seconds(work, device))
    peak = 2 * PEAK_SIDE**3 / statistics.median(product) / 1e9
    flop = _step_gflop(config, image_shape, network)
    naive = statistics.median(seconds[Candidate(NAIVE)][0]) if Candidate(NAIVE) in seconds else None
    timings = []
    for candidate, (whole, bare) in seconds.items():
        on_progress(f"memory of {candidate}")
        mib = _peak_mib_apart(config, image_shape, candidate, device, network) if memory else None
        timings.append(_timing(candidate, config, whole, bare, flop, peak, naive, mib))
    timings.sort(key=lambda timing: timing.outer_step_ms)
    return Bench(image_shape, config, rounds, flop, peak, timings, refused, environment())


def _timing(
    candidate: Candidate,
    config: Config,
    seconds: Sequence[float],
    bare: Sequence[float],
    flop: float,
    peak: float,
    naive: float | None,
    peak_mib: float | None,
) -> Timing:
    median = statistics.median(seconds)
    low, _, high = statistics.quantiles(seconds, n=4)
    steps = config.outer.meta_batch * config.inner.inner_steps
    return Timing(
        candidate,
        outer_step_ms=1000 * median,
        quartiles_ms=(1000 * low, 1000 * high),
        task_step_ms=1000 * median / steps,
        images_per_second=steps * config.inner.inner_batch / median,
        peak_share=flop * steps / median / peak,
        speedup=naive / median if naive else None,
        outside=1 - statistics.median(bare) / median if bare else None,
        peak_mib=peak_mib,
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of one call, to the end of what it started on a GPU."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _warm(
    config: Config, image_shape: tuple[int, int, int], candidate: Candidate, device: torch.device, network: Network
) -> _Works:
    """Whole outer steps and, but for the naive loop, the network's forward and backward passes in them alone."""
    bare = None
    if candidate.execution == NAIVE:
        whole = naive_outer_steps(config, image_shape, device, network)
    else:
        whole = outer_steps(config, image_shape, candidate, device, network)
        if not candidate.graph:
            bare = bare_steps(config, image_shape, candidate, device, network)
    with precision_of(device, candidate.precision):
        for work in [whole] if bare is None else [whole, bare]:
            for _ in range(WARM_UP):
                _seconds(work, device)
    return whole, bare


def _step_gflop(config: Config, image_shape: tuple[int, int, int], network: Network) -> float:
    """Arithmetic of one task-step: convolutions and matrix products, forward and backward."""
    net = build_network(network, image_shape, config.task.way)
    with FlopCounterMode(display=False) as counter:
        total: Tensor = net(torch.zeros(config.inner.inner_batch, *image_shape)).sum()
        total.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / 1e9


def _peak_mib_apart(
    config: Config, image_shape: tuple[int, int, int], candidate: Candidate, device: torch.device, network: Network
) -> float | None:
    """Peak memory in a process of its own; None if that failed."""
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
        job = apart.submit(_peak_mib, config.to_json(), image_shape, candidate, str(device), threads, network)
        try:
            return job.result()
        except (RuntimeError, OSError):  # BrokenProcessPool too: killed for want of memory
            return None


def _peak_mib(
    config: str, image_shape: tuple[int, int, int], candidate: Candidate, device: str, threads: int, network: Network
) -> float:
    torch.set_num_threads(threads)
    keep_freed_memory()
    where = torch.device(device)
    random_store(image_shape, where)
    torch.ones(8, 8) @ torch.ones(8, 8)  # loads what every candidate needs
    before = peak_mib()
    _warm(Config.from_json(config), image_shape, candidate, where, network)
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / 2**20
    return peak_mib() - before
