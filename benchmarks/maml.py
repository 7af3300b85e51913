"""Time of MAML's outer step against a loop over tasks, `higher` and torchopt, in one run.

    python benchmarks/maml.py --network omniglot --rounds 7 [--peers] [--algorithms maml fomaml anil meta-sgd]

Published settings (5-way 1-shot, meta-batch 32 or 4) on random images; times include everything from drawing tasks to
the outer update. "Task by task" is the common implementation: a dict of fast weights and torch.autograd.grad with
create_graph, one task after another. Peers run in a separate process with the environment of
requirements/functional.txt (peers/with_maml.py). All take turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

from torchreptile.algorithms.build import algorithm_class, build_algorithm
from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.core.device import keep_freed_memory
from torchreptile.core.environment import environment
from torchreptile.experiments.benchmark.bench import SHAPES
from torchreptile.experiments.benchmark.workloads import random_store
from torchreptile.models.blueprint import build_network
from torchreptile.training.outer_step import OuterStep

PEERS = Path(__file__).resolve().parent / "peers"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Settings:
    """What to run."""

    network: Literal["omniglot", "mini-imagenet"] = "omniglot"
    algorithms: tuple[str, ...] = ("maml", "fomaml", "anil", "meta-sgd")
    executions: tuple[str, ...] = ("auto",)
    """Executions of torchreptile; auto is the default of `reptile train`."""
    peers: bool = False
    """Also run higher and torchopt on MAML's workload."""
    rounds: int = 7
    threads: int = 1
    meta_batch: int = 0
    """Tasks per outer step; 0 means as published."""
    out: Path | None = None
    """File to write the results to as JSON."""


def ours(config: Config, shape: tuple[int, int, int]) -> Callable[[], object]:
    """Return a function that runs the next outer step as `reptile train` does."""
    steps = config.outer.outer_steps * config.outer.meta_batch * config.inner.inner_steps
    algorithm = build_algorithm(config, shape, CPU, task_steps=steps)
    sampler = algorithm.sampler(random_store(shape, CPU))
    step = OuterStep(algorithm, sampler, config.outer, torch.Generator().manual_seed(0), record=False)
    state = algorithm.begin(0)

    def work() -> object:
        nonlocal state
        state, _ = step(state, 1e-3)
        return state

    return work


def task_by_task(config: Config, shape: tuple[int, int, int]) -> Callable[[], object]:
    """Return a function that runs an outer step task by task, with torch.optim.Adam as outer optimiser."""
    name, inner = config.method.algorithm, config.inner
    kind = algorithm_class(name)
    net = build_network(kind.network(config), shape, config.task.way)
    sampler = build_algorithm(config, shape, CPU).sampler(random_store(shape, CPU))
    generator = torch.Generator().manual_seed(0)
    phi = dict(net.named_parameters())
    moving = [key for key in phi if key.startswith("head.")] if name == "anil" else list(phi)
    rates = {key: torch.full_like(phi[key], inner.inner_lr, requires_grad=name == "meta-sgd") for key in moving}
    meta_params = [*phi.values(), *(rates.values() if name == "meta-sgd" else ())]
    adam = torch.optim.Adam(meta_params, lr=1e-3)

    def loss_of(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(net, weights, (x,)), y)

    def work() -> None:
        episodes = sampler.sample(config.outer.meta_batch, generator)
        adam.zero_grad()
        for task in range(len(episodes)):
            fast = dict(phi)
            for _ in range(inner.inner_steps):
                loss = loss_of(fast, episodes.support_x[task], episodes.support_y[task])
                inputs = [fast[key] for key in moving]
                gradient = torch.autograd.grad(loss, inputs, create_graph=name != "fomaml")
                fast |= {key: fast[key] - rates[key] * g for key, g in zip(moving, gradient, strict=True)}
            loss = loss_of(fast, episodes.query_x[task], episodes.query_y[task]) / len(episodes)
            loss.backward()  # type: ignore[no-untyped-call]
        if config.outer.outer_clip:
            torch.nn.utils.clip_grad_value_(meta_params, config.outer.outer_clip)
        adam.step()

    return work


class Peer:
    """A library in a separate process, which runs an outer step per line of input and returns its seconds."""

    def __init__(self, library: str, config: Config, settings: Settings) -> None:
        sys.path.insert(0, str(PEERS))
        from environments import interpreter

        work = {
            "library": library,
            "network": settings.network,
            "threads": settings.threads,
            "tasks": config.outer.meta_batch,
            "way": config.task.way,
            "shots": config.task.images_per_class,
            "queries": config.task.train_queries,
            "steps": config.inner.inner_steps,
            "lr": config.inner.inner_lr,
        }
        command = [str(interpreter("functional")), str(PEERS / "with_maml.py"), json.dumps(work)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self) -> float:
        """Return the seconds of its next outer step, by its own clock."""
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        return _request_step(to, back)

    def close(self) -> None:
        """End the process by closing its input."""
        self._process.communicate()


def _request_step(to: IO[str], back: IO[str]) -> float:
    """Request an outer step; return its seconds."""
    to.write("step\n")
    to.flush()
    return float(back.readline())


def _timed(work: Callable[[], object]) -> Callable[[], float]:
    """Return a function that runs ``work`` and returns its seconds."""

    def seconds() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return seconds


def main(settings: Settings) -> None:
    """Warm up, take turns, print medians."""
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    shape, contestants, peers = SHAPES[settings.network], {}, []
    for name in settings.algorithms:
        config = preset(f"{settings.network}-1shot-5way", name)
        if settings.meta_batch:
            config = config.replace(meta_batch=settings.meta_batch)
        contestants[f"{name}, task by task"] = _timed(task_by_task(config, shape))
        for execution in settings.executions:
            work = ours(config.replace(execution=execution), shape)
            contestants[f"{name}, torchreptile {execution}"] = _timed(work)
        if name == "maml" and settings.peers:
            for library in ("higher", "torchopt"):
                peers.append(Peer(library, config, settings))
                contestants[f"maml, {library}"] = peers[-1].seconds
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    order = list(contestants)
    for turn in range(settings.rounds + 1):
        for name in order:
            seconds = contestants[name]()
            if turn:  # the first turn is a warm-up
                taken[name].append(seconds)
        order.reverse()
    for peer in peers:
        peer.close()
    medians = {name: 1000 * statistics.median(seconds) for name, seconds in taken.items()}
    for name, median in medians.items():
        reference = medians[f"{name.split(',')[0]}, task by task"]
        print(f"{name:40} {median:9.1f} ms per outer step   {reference / median:5.2f}x task by task")
    if settings.out is not None:
        content = {"medians_ms": medians, "turns_s": taken, "environment": environment()}
        settings.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
