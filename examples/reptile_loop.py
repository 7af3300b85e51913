"""Reptile written out from the library's parts, on the generated ``glyphs`` data set.

python examples/reptile_loop.py
"""

from __future__ import annotations

from dataclasses import replace

import torch

import torchreptile as tr
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerLoop, as_if_in_sequence
from torchreptile.data.loading import load_splits
from torchreptile.data.minibatches import minibatches
from torchreptile.training.evaluation.measure import measure

CONFIG = tr.preset("glyphs-1shot-5way").replace(inner_state="share")
STEPS, TASKS, SHOTS, BATCH, INNER_STEPS = 200, 5, 10, 10, 5


def main(steps: int = STEPS, episodes: int = 100) -> MetaState:
    """Meta-train 5-way, and print the 1-shot accuracy on validation classes."""
    splits, generator = load_splits(CONFIG.task), torch.Generator().manual_seed(0)
    sampler = tr.EpisodeSampler(splits.train, way=5, shots=SHOTS, queries=0)
    algorithm = build_algorithm(CONFIG, splits.train.image_shape, torch.device("cpu"))
    inner_loop = InnerLoop(CONFIG.inner, algorithm.execution)
    state = algorithm.begin(seed=0)  # phi, and what the optimisers remember

    for step in range(steps):
        tasks = sampler.sample(TASKS, generator)
        drawn = minibatches(TASKS, 5 * SHOTS, BATCH, INNER_STEPS, replacement=False, generator=generator)
        params, inner = inner_loop.stacked(state.params, state.inner, TASKS)  # one copy of phi per task
        losses = inner_loop.run(params, inner, take_batches(tasks.support_x, tasks.support_y, drawn))
        step_size = 1 - step / steps
        phi = {name: p + step_size * (params[name] - p).mean(0) for name, p in state.params.items()}
        mean = replace(inner, v={name: v.mean(0) for name, v in inner.v.items()})  # Adam's second moment, over tasks
        state = replace(state, params=phi, inner=as_if_in_sequence(state.inner, mean, TASKS))
        if step % 50 == 0:
            print(f"step {step}: inner loss {losses.mean():.3f}")

    evaluation_sampler = tr.EpisodeSampler(splits.get("val"), way=5, shots=1, queries=1)
    print(f"validation classes: {measure(algorithm, state, evaluation_sampler, episodes, seed=0)}")
    return state


if __name__ == "__main__":
    main()
