"""Time of one outer step, and the share of it that is not the network's own forward and backward pass.

    python benchmarks/outer_step.py [--preset omniglot-1shot-5way] [--execution compiled] [--rounds 40]

Both sides alternate in one process, after warm-up; medians. "Bare" is the forward and backward pass of the
same execution on a mini-batch that is already there: no sampling, no optimiser, no outer update.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro

from torchreptile.algorithms import MetaState, build_algorithm
from torchreptile.algorithms.reptile import Reptile
from torchreptile.data import ImageStore
from torchreptile.environment import environment
from torchreptile.inner import stack
from torchreptile.models import for_images
from torchreptile.presets import preset
from torchreptile.training import initial_params, outer_update

WARM_UP = 5


@dataclass(frozen=True)
class Settings:
    """What to time."""

    preset: str = "omniglot-1shot-5way"
    execution: str = "grouped"
    rounds: int = 40


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(settings: Settings) -> None:
    """Alternate whole outer steps with bare passes and print medians."""
    config = preset(settings.preset).replace(execution=settings.execution)
    device = torch.device("cpu")
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1200 * 20, 1, 28, 28), dtype=torch.uint8, generator=generator)
    names = tuple(map(str, range(1200)))
    store = ImageStore(pixels, torch.full((1200,), 20), names, "random")  # the pixels' values do not change the time
    algorithm = build_algorithm(for_images(store.image_shape, config.task.way), config, device, task_steps=0)
    assert isinstance(algorithm, Reptile)
    sampler = algorithm.sampler(store)
    state = algorithm.initial_state(initial_params(config, store.image_shape))
    tasks, steps = config.outer.meta_batch, config.inner.inner_steps

    def outer_step() -> None:
        nonlocal state
        learned = algorithm.meta_gradient(state, sampler.sample(tasks, generator), generator)
        state = MetaState(outer_update(state.params, learned.gradient, 0.5), learned.inner)

    params = stack(state.params, tasks)
    episodes = sampler.sample(tasks, generator)
    x, y = episodes.support_x[:, : config.inner.inner_batch], episodes.support_y[:, : config.inner.inner_batch]
    bare_pass = algorithm.inner_loop.loss_and_gradient
    if settings.execution == "compiled":
        bare_pass = torch.compile(bare_pass, dynamic=False)

    def bare() -> None:
        for _ in range(steps):
            bare_pass(params, x, y)

    for _ in range(WARM_UP):
        outer_step()
        bare()
    pairs = [(seconds(outer_step), seconds(bare)) for _ in range(settings.rounds)]
    outer, passes = (1000 * statistics.median(side) for side in zip(*pairs, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(environment())
    print(
        f"{settings.preset}, {settings.execution}, n={settings.rounds}: {outer:.1f} ms per outer step, "
        f"{outer / tasks / steps:.2f} ms per task-step; bare forward and backward {passes:.1f} ms; "
        f"share outside it {100 * (1 - passes / outer):.1f}%; peak memory {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main(tyro.cli(Settings))
