"""Workloads of a benchmark: complete outer steps, the naive loop, and the network's passes alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerLoop
from torchreptile.core.config import Config
from torchreptile.core.torch_compile import compiled
from torchreptile.data.image_store import ImageStore
from torchreptile.data.minibatches import minibatches
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.models.blueprint import Network, build_network, initial_params
from torchreptile.models.conv4.network import for_images
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.execution import stack
from torchreptile.training.outer_step import OuterStep

NAIVE = "naive"  # deepcopy and torch.optim.Adam, one task after another, the common way to write it
CLASSES, IMAGES = 100, 20


@dataclass(frozen=True)
class Candidate:
    """One way to compute outer steps.

    Attributes:
        execution: one of EXECUTIONS, or NAIVE.
        precision: fp32, tf32 or bf16.
        graph: whether the outer step is recorded as a CUDA graph (on a GPU).
    """

    execution: str
    precision: str = "fp32"
    graph: bool = False

    def __str__(self) -> str:
        """Name the execution, the precision, and ``graph`` if there is one."""
        return " ".join([self.execution, self.precision, *(["graph"] if self.graph else [])])


def random_store(image_shape: tuple[int, int, int], device: torch.device) -> ImageStore:
    """Return random images in 100 classes of 20; pixel values do not influence the timing."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (CLASSES * IMAGES, *image_shape), dtype=torch.uint8, generator=generator)
    names = tuple(f"noise{i}" for i in range(CLASSES))
    return ImageStore(pixels, torch.full((CLASSES,), IMAGES), names, "noise").to(device)


def outer_steps(
    config: Config,
    image_shape: tuple[int, int, int],
    candidate: Candidate,
    device: torch.device,
    network: Network = for_images,
) -> Callable[[], object]:
    """Return a function that runs the next outer step of a training."""
    config = config.replace(execution=candidate.execution, precision=candidate.precision)
    algorithm = build_algorithm(config, image_shape, device, network=network)
    sampler = algorithm.sampler(random_store(image_shape, device))
    generator = torch.Generator(device).manual_seed(0)
    step = OuterStep(algorithm, sampler, config.outer, generator, record=candidate.graph)
    state = algorithm.begin(seed=0)

    def work() -> MetaState:
        nonlocal state
        state, _ = step(state, 0.5)
        return state

    return work


def bare_steps(
    config: Config, image_shape: tuple[int, int, int], candidate: Candidate, device: torch.device, network: Network
) -> Callable[[], object]:
    """Return a function that runs only the forward and backward passes of one outer step, on a fixed mini-batch."""
    tasks, way = config.outer.meta_batch, config.task.way
    module = build_network(network, image_shape, way)
    execution = choose_execution(candidate.execution, module, image_shape, device, precision=candidate.precision)
    together = 1 if execution.one_by_one else tasks
    loop = InnerLoop(config.inner, execution, candidate.precision)
    fresh = initial_params(network, image_shape, way, seed=0)
    params = stack({name: p.to(device) for name, p in fresh.items()}, together, execution.kernel_order)
    x = torch.rand(together, config.inner.inner_batch, *image_shape, device=device)
    y = torch.arange(config.inner.inner_batch, device=device).expand(together, -1) % way
    passes = compiled(loop.loss_and_gradient) if execution.compiled else loop.loss_and_gradient

    def work() -> None:
        with execution.claim():
            for _ in range(config.inner.inner_steps * tasks // together):
                passes(params, x, y)

    return work


def naive_outer_steps(
    config: Config, image_shape: tuple[int, int, int], device: torch.device, network: Network = for_images
) -> Callable[[], object]:
    """Return a function that runs an outer step naively: deepcopy and torch.optim.Adam task by task, then the mean."""
    store, generator = random_store(image_shape, device), torch.Generator(device).manual_seed(0)
    sampler = EpisodeSampler(store, config.task.way, config.task.images_per_class, queries=0)
    net = build_network(network, image_shape, config.task.way).to(device)
    inner, tasks = config.inner, config.outer.meta_batch

    def work() -> None:
        episodes = sampler.sample(tasks, generator)
        images = episodes.support_y.shape[1]
        drawn = minibatches(tasks, images, inner.inner_batch, inner.inner_steps, inner.replacement, generator)
        adapted = []
        for task in range(tasks):
            fast = copy.deepcopy(net)
            optimizer = torch.optim.Adam(fast.parameters(), lr=inner.inner_lr, betas=(0.0, 0.999))
            for chosen in drawn[task]:
                optimizer.zero_grad()
                logits = fast(episodes.support_x[task, chosen])
                loss = F.cross_entropy(logits, episodes.support_y[task, chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            adapted.append(dict(fast.named_parameters()))
        with torch.no_grad():
            for name, p in net.named_parameters():
                p.add_(torch.stack([weights[name] for weights in adapted]).mean(0) - p, alpha=0.5)

    return work
