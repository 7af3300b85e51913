"""Benchmark of meta-training: every execution against a naive loop, in one run on this machine.

Each candidate runs complete outer steps: sampling, inner loops, optimiser and outer update. After a warm-up the
candidates take turns, so that other load on the machine affects all of them alike; medians are reported.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from torchreptile.algorithms.custom import CustomCode
from torchreptile.core.config import Config
from torchreptile.core.device import keep_freed_memory, precision_of
from torchreptile.core.distributed.jobs import Job, JobsError, Send, do_jobs
from torchreptile.core.environment import environment, peak_mib
from torchreptile.core.errors import ConfigError, first_line
from torchreptile.core.json_text import json_text
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
PEAK_SIDE = 2048  # side of the square matrices whose product measures the machine's peak

_Works = tuple[Callable[[], object], Callable[[], object] | None]


@dataclass(frozen=True)
class Timing:
    """Timings of one candidate.

    Attributes:
        candidate: execution, precision and CUDA graph.
        outer_step_ms: median time of an outer step in ms.
        quartiles_ms: lower and upper quartile of that time.
        task_step_ms: time per inner step of one task.
        images_per_second: images processed by inner steps per second.
        peak_share: arithmetic speed as a share of the fp32 matrix products measured in the same run, from 0 to 1.
        speedup: factor over the naive loop in the same run; None if that was not run.
        outside: share of the outer step spent outside the network's forward and backward passes (sampling, cutting
            mini-batches, optimiser, outer update, Python); None for the naive loop and for CUDA graphs.
        peak_mib: memory in MiB beyond imports and data, measured in a separate process; None if not measured.
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
    """The results of a benchmark.

    Attributes:
        image_shape: (C, H, W) of the random images.
        config: way, meta-batch, inner batch and inner steps of the workload.
        rounds: timed outer steps per candidate.
        step_gflop: arithmetic of one inner step of one task, forward and backward, in GFLOP.
        peak_gflops: speed of fp32 matrix products, measured in the same run, in GFLOP/s.
        timings: results by candidate, fastest first.
        refused: candidates that cannot run here, with the reason.
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
        """Return the results as indented JSON."""
        return json_text(dataclasses.asdict(self), indent=2)


def bench(
    config: Config,
    image_shape: tuple[int, int, int],
    candidates: Sequence[Candidate],
    device: torch.device,
    rounds: int = 20,
    memory: bool = True,
    on_progress: Callable[[str], None] = lambda what: None,
    on_ready: Callable[[str], None] = lambda what: None,
    network: Network = for_images,
) -> Bench:
    """Time the outer steps of ``candidates`` on random images.

    Args:
        config: the workload: way, train_shots, inner_batch, inner_steps, meta_batch and inner optimiser.
        image_shape: (C, H, W).
        candidates: the executions to compare.
        device: device to run on.
        rounds: timed outer steps per candidate, at least 3.
        memory: also measure peak memory, each candidate in a separate process.
        on_progress: called with a description of the current stage.
        on_ready: called with a line about each candidate that is warmed up, or cannot run.
        network: builds the module from image shape and way.

    Returns:
        The results, fastest candidate first.

    Raises:
        ConfigError: ``rounds`` is too small, no candidate can run, or memory is asked for and the algorithm or network
            belongs to the script or notebook that is run.

    Example:
        >>> work = Config().replace(way=2, train_shots=1, inner_batch=2, inner_steps=1, meta_batch=2)
        >>> result = bench(work, (1, 8, 8), [Candidate("loop")], torch.device("cpu"), rounds=3, memory=False)
        >>> [str(timing.candidate) for timing in result.timings]
        ['loop fp32']
    """
    if rounds < 3:
        raise ConfigError(f"rounds is {rounds}; it must be at least 3")
    memory_job = partial(_memory_job, config, image_shape, device=device, network=network)
    if memory and candidates:
        memory_job(candidates[0]).pickled()  # refused now, not after everything was timed
    keep_freed_memory()
    ready: dict[Candidate, _Works] = {}
    refused: dict[str, str] = {}
    for candidate in candidates:
        on_progress(f"warming up {candidate}")
        try:
            ready[candidate], last = _warm(config, image_shape, candidate, device, network)
            on_ready(f"{candidate}: {1000 * last:,.1f} ms in the last step of its warm-up")
        except (ConfigError, RuntimeError) as error:
            refused[str(candidate)] = first_line(error)
            on_ready(f"{candidate} cannot run here: {first_line(error)}")
    if not ready:
        raise ConfigError(f"nothing to measure: {refused}")
    seconds, peak = _time_in_turns(ready, rounds, device, on_progress)
    flop = _step_gflop(config, image_shape, network)
    naive = statistics.median(seconds[Candidate(NAIVE)][0]) if Candidate(NAIVE) in seconds else None
    timings = []
    for candidate, (full, bare) in seconds.items():
        on_progress(f"memory of {candidate}")
        mib = _peak_mib_in_subprocess(memory_job(candidate)) if memory else None
        timings.append(_timing(candidate, config, full, bare, flop, peak, naive, mib))
    timings.sort(key=lambda timing: timing.outer_step_ms)
    return Bench(image_shape, config, rounds, flop, peak, timings, refused, environment())


def _time_in_turns(
    ready: dict[Candidate, _Works], rounds: int, device: torch.device, on_progress: Callable[[str], None]
) -> tuple[dict[Candidate, tuple[list[float], list[float]]], float]:
    """Return the seconds of every candidate's full and bare steps, and the speed of matrix products in GFLOP/s."""
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
    return seconds, 2 * PEAK_SIDE**3 / statistics.median(product) / 1e9


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
    """Summarise a candidate's times in seconds."""
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
    """Return the wall time of one call, including the GPU work it starts."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _warm(
    config: Config, image_shape: tuple[int, int, int], candidate: Candidate, device: torch.device, network: Network
) -> tuple[_Works, float]:
    """Build and warm up a candidate: its outer steps and, where measured, its bare forward and backward passes.

    Returns:
        Both, and the seconds of the last outer step.
    """
    bare = None
    if candidate.execution == NAIVE:
        full = naive_outer_steps(config, image_shape, device, network)
    else:
        full = outer_steps(config, image_shape, candidate, device, network)
        if not candidate.graph:
            bare = bare_steps(config, image_shape, candidate, device, network)
    with precision_of(device, candidate.precision):
        for _ in range(WARM_UP):
            last = _seconds(full, device)
        if bare is not None:
            for _ in range(WARM_UP):
                _seconds(bare, device)
    return (full, bare), last


def _step_gflop(config: Config, image_shape: tuple[int, int, int], network: Network) -> float:
    """Count the GFLOP of one inner step of one task: convolutions and matrix products, forward and backward."""
    net = build_network(network, image_shape, config.task.way)
    with FlopCounterMode(display=False) as counter:
        total: Tensor = net(torch.zeros(config.inner.inner_batch, *image_shape)).sum()
        total.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / 1e9


def _memory_job(
    config: Config, image_shape: tuple[int, int, int], candidate: Candidate, device: torch.device, network: Network
) -> Job:
    """Return the measurement of a candidate's memory, for a separate process."""
    work = partial(_peak_mib, config.to_json(), image_shape, candidate, str(device), network)
    return Job(f"memory of {candidate}", work, CustomCode.of(config).load)


def _peak_mib_in_subprocess(job: Job) -> float | None:
    """Measure peak memory in a separate process; return None if it fails, such as for lack of memory."""
    peaks: list[float] = []
    try:
        completed = do_jobs([job], 1, torch.get_num_threads(), lambda *_: None, lambda _, peak: peaks.append(peak))
    except JobsError:
        return None
    if not completed:
        raise KeyboardInterrupt
    return peaks[0]


def _peak_mib(
    config: str, image_shape: tuple[int, int, int], candidate: Candidate, device: str, network: Network, send: Send
) -> float:
    """Return the memory in MiB that a candidate takes beyond imports and data; runs in its own process."""
    keep_freed_memory()
    where = torch.device(device)
    random_store(image_shape, where)
    torch.ones(8, 8) @ torch.ones(8, 8)  # loads the libraries that every candidate needs
    before = peak_mib()
    _warm(Config.from_json(config), image_shape, candidate, where, network)
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / 2**20
    return peak_mib() - before
