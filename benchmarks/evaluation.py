"""Time of evaluation episodes against a naive loop: 5-way 1-shot, 50 inner steps, both modes.

    python benchmarks/evaluation.py [--rounds 5] [--out evaluation.json]

Random images of Omniglot's size. In every round the naive loop computes a few episodes and each execution a batch of
100, in one process, after a warm-up; prints medians of the time per episode.
"""

from __future__ import annotations

import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro

from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.config import Config
from torchreptile.core.device import choose_device, keep_freed_memory
from torchreptile.core.environment import environment
from torchreptile.data.minibatches import minibatches
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.experiments.benchmark.workloads import random_store
from torchreptile.models.blueprint import build_network, initial_params
from torchreptile.models.conv4.network import for_images
from torchreptile.training.evaluation.measure import EPISODES_PER_DRAW, measure

SHAPE = (1, 28, 28)
NAIVE_EPISODES = 5
FULL = 10_000


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    executions: tuple[str, ...] = ("grouped", "compiled", "native")
    rounds: int = 5
    device: str = "cpu"
    out: Path = Path("evaluation.json")


def naive(config: Config, sampler: EpisodeSampler) -> Callable[[], object]:
    """Return a naive loop over episodes: deepcopy and torch.optim.Adam, then each query alone, and all in one batch."""
    generator = torch.Generator(sampler.store.images.device).manual_seed(0)
    net = build_network(for_images, SHAPE, config.task.way).to(sampler.store.images.device)
    settings = config.evaluation

    def work() -> None:
        for _ in range(NAIVE_EPISODES):
            episode = sampler.sample(1, generator)[0:1]
            support, labels = episode.support_x[0], episode.support_y[0]
            fast = copy.deepcopy(net)
            optimizer = torch.optim.Adam(fast.parameters(), lr=config.inner.inner_lr, betas=(0.0, 0.999))
            drawn = minibatches(1, len(labels), settings.eval_batch, settings.eval_steps, False, generator)
            for chosen in drawn[0]:
                optimizer.zero_grad()
                F.cross_entropy(fast(support[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            with torch.no_grad():
                fast(episode.query_x[0]).argmax(-1)
                for query in episode.query_x[0]:
                    fast(torch.cat([support, query[None]]))[-1].argmax(-1)

    return work


def ours(config: Config, sampler: EpisodeSampler, execution: str, device: torch.device) -> Callable[[], object]:
    """Return a function that evaluates a batch of episodes as `reptile evaluate` does."""
    algorithm = build_algorithm(config.replace(execution=execution), SHAPE, device)
    fresh = initial_params(for_images, SHAPE, config.task.way, seed=0)
    state = algorithm.initial_state({name: p.to(device) for name, p in fresh.items()})
    return lambda: measure(algorithm, state, sampler, EPISODES_PER_DRAW, seed=0)


def main(settings: Settings) -> None:
    """Measure, print and save."""
    keep_freed_memory()
    device = choose_device(settings.device)
    config = Config()
    sampler = EpisodeSampler(random_store(SHAPE, device), config.task.way, 1, config.evaluation.queries)
    works: dict[str, tuple[int, Callable[[], object]]] = {"naive": (NAIVE_EPISODES, naive(config, sampler))}
    for execution in settings.executions:
        works[execution] = EPISODES_PER_DRAW, ours(config, sampler, execution, device)
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(settings.rounds + 1):
        for name, (episodes, work) in works.items():
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:  # the first turn is a warm-up
                taken[name].append((time.perf_counter() - start) / episodes)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in medians.items():
        print(
            f"{name}: {1000 * seconds:.1f} ms per episode, {FULL * seconds / 60:.1f} min for {FULL:,}, "
            f"{medians['naive'] / seconds:.2f}x naive"
        )
    content = {"seconds_per_episode": medians, "rounds": settings.rounds, "environment": environment()}
    settings.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
