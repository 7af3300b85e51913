"""How fast this machine meta-trains: every execution beside the loop that people write by hand, in one run.

Each candidate does whole outer steps, everything included: sampling, inner loops, optimiser, outer update.
They take turns, after warm-up, so that whatever else the machine does meets all of them alike; medians count.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from torchreptile.algorithms import MetaState, build_algorithm
from torchreptile.config import Config
from torchreptile.data import ImageStore
from torchreptile.device import keep_freed_memory, precision_of
from torchreptile.environment import environment
from torchreptile.episodes import EpisodeSampler
from torchreptile.errors import ConfigError
from torchreptile.minibatches import minibatches
from torchreptile.models import build_network, for_images, initial_params
from torchreptile.outer import OuterStep

NAIVE = "naive"  # deepcopy, torch.optim.Adam, one task after another, as most code is written
EXECUTIONS = ("loop", "grouped", "matmul", "vmap", "compiled")
SHAPES = {"omniglot": (1, 28, 28), "mini-imagenet": (3, 84, 84)}
WARM_UP = 3
PEAK_SIDE = 2048  # of the square matrices whose product shows what the machine can do
CLASSES, IMAGES = 100, 20
LINUX_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Candidate:
    """One way to do the work.

    Attributes:
        execution: one of EXECUTIONS, or NAIVE.
        precision: fp32, tf32 or bf16.
        graph: on a GPU, whether the outer step is recorded as a CUDA graph.
    """

    execution: str
    precision: str = "fp32"
    graph: bool = False

    def __str__(self) -> str:
        """For people."""
        return " ".join([self.execution, self.precision, *(["graph"] if self.graph else [])])


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
        peak_mib: memory beyond what the imports and the data take, in a process of its own; None if not measured.
    """

    candidate: Candidate
    outer_step_ms: float
    quartiles_ms: tuple[float, float]
    task_step_ms: float
    images_per_second: float
    peak_share: float
    speedup: float | None
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

    Raises:
        ConfigError: too few rounds, or no candidate can run.
    """
    if rounds < 3:
        raise ConfigError(f"rounds is {rounds}; it must be at least 3")
    keep_freed_memory()
    ready: dict[Candidate, Callable[[], object]] = {}
    refused: dict[str, str] = {}
    for candidate in candidates:
        on_progress(f"warming up {candidate}")
        try:
            ready[candidate] = _warm(config, image_shape, candidate, device)
        except (ConfigError, RuntimeError) as error:
            refused[str(candidate)] = (str(error).splitlines() or [type(error).__name__])[0]
    if not ready:
        raise ConfigError(f"nothing to measure: {refused}")
    a = torch.rand(PEAK_SIDE, PEAK_SIDE, device=device)
    seconds: dict[Candidate | None, list[float]] = {key: [] for key in (None, *ready)}
    for turn in range(rounds):
        on_progress(f"round {turn + 1} of {rounds}")
        seconds[None].append(_seconds(lambda: a @ a, device))
        for candidate, work in ready.items():
            with precision_of(device, candidate.precision):
                seconds[candidate].append(_seconds(work, device))
    peak = 2 * PEAK_SIDE**3 / statistics.median(seconds.pop(None)) / 1e9
    peaks: dict[Candidate, float | None] = {}
    for candidate in ready:
        on_progress(f"memory of {candidate}")
        peaks[candidate] = _peak_mib_apart(config, image_shape, candidate, device) if memory else None
    flop = _step_gflop(config, image_shape)
    naive = statistics.median(seconds[Candidate(NAIVE)]) if Candidate(NAIVE) in seconds else None
    timings = [
        _timing(candidate, config, measured, flop, peak, naive, peaks[candidate])
        for candidate, measured in seconds.items()
        if candidate is not None
    ]
    timings.sort(key=lambda timing: timing.outer_step_ms)
    return Bench(image_shape, config, rounds, flop, peak, timings, refused, environment())


def _timing(
    candidate: Candidate,
    config: Config,
    seconds: Sequence[float],
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
    config: Config, image_shape: tuple[int, int, int], candidate: Candidate, device: torch.device
) -> Callable[[], object]:
    work = naive_outer_steps(config, image_shape, device) if candidate.execution == NAIVE else None
    work = work or outer_steps(config, image_shape, candidate, device)
    with precision_of(device, candidate.precision):
        for _ in range(WARM_UP):
            _seconds(work, device)
    return work


def random_store(image_shape: tuple[int, int, int], device: torch.device) -> ImageStore:
    """Noise: the pixels' values do not change the time."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (CLASSES * IMAGES, *image_shape), dtype=torch.uint8, generator=generator)
    names = tuple(f"noise{i}" for i in range(CLASSES))
    return ImageStore(pixels, torch.full((CLASSES,), IMAGES), names, "noise").to(device)


def outer_steps(
    config: Config, image_shape: tuple[int, int, int], candidate: Candidate, device: torch.device
) -> Callable[[], object]:
    """A function that does the next outer step of a training."""
    config = config.replace(execution=candidate.execution, precision=candidate.precision)
    algorithm = build_algorithm(config, image_shape, device)
    sampler = algorithm.sampler(random_store(image_shape, device))
    generator = torch.Generator(device).manual_seed(0)
    step = OuterStep(algorithm, sampler, config.outer.meta_batch, generator, record=candidate.graph)
    fresh = initial_params(for_images, image_shape, config.task.way, seed=0)
    state = algorithm.initial_state({name: p.to(device) for name, p in fresh.items()})

    def work() -> MetaState:
        nonlocal state
        state, _ = step(state, 0.5)
        return state

    return work


def naive_outer_steps(config: Config, image_shape: tuple[int, int, int], device: torch.device) -> Callable[[], object]:
    """The same as people write it: a deep copy, torch.optim.Adam, one task after another, then the mean."""
    store, generator = random_store(image_shape, device), torch.Generator(device).manual_seed(0)
    sampler = EpisodeSampler(store, config.task.way, config.task.images_per_class, queries=0)
    net = build_network(for_images, image_shape, config.task.way).to(device)
    inner, tasks = config.inner, config.outer.meta_batch

    def work() -> None:
        episodes = sampler.sample(tasks, generator)
        images = episodes.support_y.shape[1]
        drawn = minibatches(tasks, images, inner.inner_batch, inner.inner_steps, inner.replacement, generator)
        learned = []
        for task in range(tasks):
            fast = copy.deepcopy(net)
            optimizer = torch.optim.Adam(fast.parameters(), lr=inner.inner_lr, betas=(0.0, 0.999))
            for chosen in drawn[task]:
                optimizer.zero_grad()
                logits = fast(episodes.support_x[task, chosen])
                loss = F.cross_entropy(logits, episodes.support_y[task, chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            learned.append(dict(fast.named_parameters()))
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.add_(torch.stack([weights[name] for weights in learned]).mean(0) - p, alpha=0.5)

    return work


def _step_gflop(config: Config, image_shape: tuple[int, int, int]) -> float:
    """Arithmetic of one task-step: convolutions and matrix products, forward and backward."""
    net = build_network(for_images, image_shape, config.task.way)
    with FlopCounterMode(display=False) as counter:
        total: Tensor = net(torch.zeros(config.inner.inner_batch, *image_shape)).sum()
        total.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / 1e9


def _peak_mib_apart(
    config: Config, image_shape: tuple[int, int, int], candidate: Candidate, device: torch.device
) -> float | None:
    """Peak memory in a process of its own; None if that failed."""
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as apart:
        job = apart.submit(_peak_mib, config.to_json(), image_shape, candidate, str(device), threads)
        try:
            return job.result()
        except (RuntimeError, OSError):  # BrokenProcessPool too: killed for want of memory
            return None


def _peak_mib(config: str, image_shape: tuple[int, int, int], candidate: Candidate, device: str, threads: int) -> float:
    torch.set_num_threads(threads)
    keep_freed_memory()
    where = torch.device(device)
    random_store(image_shape, where)
    torch.ones(8, 8) @ torch.ones(8, 8)  # loads what every candidate needs
    before = _resident_mib()
    _warm(Config.from_json(config), image_shape, candidate, where)
    if where.type == "cuda":
        return torch.cuda.max_memory_allocated(where) / 2**20
    return _resident_mib() - before


def _resident_mib() -> float:
    """The most memory this process ever had in use."""
    if LINUX_STATUS.is_file():  # getrusage there begins with the peak of the process that started this one
        fields = dict(line.split(":", 1) for line in LINUX_STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
