"""Time of meta-gradients of MANN, Meta-LSTM and the metric learners against loops over tasks.

    python benchmarks/task_by_task.py [--algorithms matching protonet] [--rounds 5] [--tasks 16] [--out FILE.json]

Random images of Omniglot's size, 5-way, published network sizes, one meta-gradient per turn. "The package" computes
its default number of tasks at a time, "side by side" all of them, "one by one" a single one, like a loop over tasks.
"As usual" is a common implementation, one task at a time: Meta-LSTM with nn.LSTMCell over coordinates and a cell that
concatenates its inputs, the metric learners with four blocks of nn.Conv2d, nn.BatchNorm2d, nn.ReLU and nn.MaxPool2d.
All take turns in one process after a warm-up. Prints medians, and the median ratio to the package over rounds. For
MAML and its variants see benchmarks/maml.py.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector

from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.rows.matching_networks import MatchingSettings
from torchreptile.core.config.presets import preset
from torchreptile.core.device import choose_device, keep_freed_memory
from torchreptile.core.environment import environment
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.experiments.benchmark.workloads import random_store
from torchreptile.models.execution.compiler import COMPILE_LARGE_FROM
from torchreptile.models.lstm_optimizer import preprocessed
from torchreptile.models.meta_lstm_learner import MetaLSTMLearner

SHAPE = (1, 28, 28)


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    algorithms: tuple[str, ...] = ("mann", "meta-lstm", "matching", "protonet")
    tasks: int = 16
    rounds: int = 5
    device: str = "cpu"
    out: Path = Path("task_by_task.json")


def meta_gradient(algorithm_name: str, tasks: int, at_a_time: int, device: torch.device) -> Callable[[], object]:
    """Return a function that computes a meta-gradient, with ``at_a_time`` tasks in parallel (0: the default)."""
    config = preset("omniglot-1shot-5way", algorithm_name).replace(meta_batch=tasks, task_chunk=at_a_time)
    algorithm = build_algorithm(config, SHAPE, device, COMPILE_LARGE_FROM)  # the execution of a long training
    state, generator = algorithm.begin(0), torch.Generator(device).manual_seed(0)
    sampler = algorithm.sampler(random_store(SHAPE, device))
    return lambda: algorithm.meta_gradient(state, sampler.sample(tasks, generator), generator)


def usual_meta_lstm(tasks: int, device: torch.device) -> Callable[[], object]:
    """Return a function that computes Meta-LSTM's meta-gradient task after task, with plain modules and autograd."""
    config = preset("omniglot-1shot-5way", "meta-lstm")
    sampler = EpisodeSampler(random_store(SHAPE, device), 5, 1, config.task.train_queries)
    generator = torch.Generator(device).manual_seed(0)
    learner = MetaLSTMLearner(SHAPE, 5).to(device)
    start = parameters_to_vector(learner.parameters()).detach().unsqueeze(1).requires_grad_()
    lstm = nn.LSTMCell(4, 20).to(device)
    forget, admit = nn.Linear(22, 1).to(device), nn.Linear(22, 1).to(device)
    meta_params = [start, *lstm.parameters(), *forget.parameters(), *admit.parameters()]

    def logits(theta: Tensor, x: Tensor) -> Tensor:
        named, at = {}, 0
        for name, p in learner.named_parameters():
            named[name], at = theta[at : at + p.numel(), 0].view_as(p), at + p.numel()
        return functional_call(learner, named, (x,))

    def one(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> tuple[Tensor, ...]:
        theta = start
        hidden = cell = start.new_zeros(len(start), 20)
        f = i = start.new_zeros(len(start), 1)
        for _ in range(config.inner.inner_steps):
            cut = theta.detach().requires_grad_()
            loss = F.cross_entropy(logits(cut, x), y)
            (slope,) = torch.autograd.grad(loss, cut)
            inputs = [preprocessed(loss.detach().expand(len(start))), preprocessed(slope[:, 0])]
            hidden, cell = lstm(torch.cat(inputs).t(), (hidden, cell))
            f, i = forget(torch.cat([hidden, theta, f], 1)), admit(torch.cat([hidden, theta, i], 1))
            theta = f.sigmoid() * theta - i.sigmoid() * slope
        return torch.autograd.grad(F.cross_entropy(logits(theta, query_x), query_y), meta_params)

    def work() -> None:
        e = sampler.sample(tasks, generator)
        for task in range(tasks):
            one(e.support_x[task], e.support_y[task], e.query_x[task], e.query_y[task])

    return work


def usual_metric(name: str, tasks: int, device: torch.device) -> Callable[[], object]:
    """Return a function that computes a metric learner's meta-gradient task by task, with plain modules."""
    config = preset("omniglot-1shot-5way", name)
    task, scale = config.task, config.own(MatchingSettings).attention_scale
    way, shots, queries = task.training_way, task.images_per_class, task.train_queries
    sampler = EpisodeSampler(random_store(SHAPE, device), way, shots, queries)
    generator = torch.Generator(device).manual_seed(0)
    blocks: list[nn.Module] = []
    for channels in (1, 64, 64, 64):
        blocks += [nn.Conv2d(channels, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    net = nn.Sequential(*blocks, nn.Flatten()).to(device)

    def one(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> None:
        embedded = net(torch.cat([x, query_x]))
        support, query = embedded[: len(x)], embedded[len(x) :]
        if name == "matching":
            cosines = F.cosine_similarity(query[:, None], support[None], dim=2)
            logits = ((scale * cosines).softmax(1) @ F.one_hot(y, way).float()).log()
            loss = F.nll_loss(logits, query_y)
        else:
            centres = torch.stack([support[y == label].mean(0) for label in range(way)])
            loss = F.cross_entropy(-torch.cdist(query, centres).square(), query_y)
        (loss / tasks).backward()

    def work() -> None:
        net.zero_grad()
        e = sampler.sample(tasks, generator)
        for task in range(tasks):
            one(e.support_x[task], e.support_y[task], e.query_x[task], e.query_y[task])

    return work


def main(settings: Settings) -> None:
    """Measure, print and save."""
    keep_freed_memory()
    device, results = choose_device(settings.device), {}
    for name in settings.algorithms:
        works = {
            "the package": meta_gradient(name, settings.tasks, 0, device),
            "side by side": meta_gradient(name, settings.tasks, settings.tasks, device),
            "one by one": meta_gradient(name, settings.tasks, 1, device),
        }
        if name == "meta-lstm":
            works["as usual"] = usual_meta_lstm(settings.tasks, device)
        if name in ("matching", "protonet"):
            works["as usual"] = usual_metric(name, settings.tasks, device)
        taken: dict[str, list[float]] = {way: [] for way in works}
        for turn in range(settings.rounds + 1):
            for way, work in works.items():
                start = time.perf_counter()
                work()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn:  # the first turn is a warm-up
                    taken[way].append(1000 * (time.perf_counter() - start) / settings.tasks)
        ours = taken["the package"]
        results[name] = {way: statistics.median(ms) for way, ms in taken.items()}
        print(f"{name}: {results[name]['the package']:.1f} ms per task by the package")
        for way in list(works)[1:]:
            ratio = statistics.median(theirs / mine for mine, theirs in zip(ours, taken[way], strict=True))
            print(f"  {way}: {results[name][way]:.1f} ms, {ratio:.2f}x")
    content = {"ms_per_task": results, "tasks": settings.tasks, "rounds": settings.rounds, "environment": environment()}
    settings.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
