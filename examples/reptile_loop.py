"""Reptile written out from the library's parts, on the generated ``glyphs`` data set.

    python examples/reptile_loop.py
"""

from dataclasses import replace

import torch

import torchreptile as tr
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.algorithms.optim.inner_loop import InnerLoop
from torchreptile.data.loading import load_splits
from torchreptile.data.minibatches import minibatches
from torchreptile.training.evaluation.measure import measure


def main(outer_steps: int = 200, episodes: int = 100) -> float:
    """Meta-train 5-way; return the accuracy of 1-shot episodes of validation classes, each query alone."""
    config = tr.preset("glyphs-1shot-5way")
    splits, generator = load_splits(config.task), torch.Generator().manual_seed(0)
    sampler = tr.EpisodeSampler(splits.train, way=5, shots=10, queries=0)
    algorithm = build_algorithm(config, splits.train.image_shape, torch.device("cpu"))
    inner_loop = InnerLoop(config.inner, algorithm.execution)
    state = algorithm.begin(seed=0)  # a MetaState: phi, and what the optimisers remember

    for step in range(outer_steps):
        tasks = sampler.sample(5, generator)
        drawn = minibatches(5, 50, batch=10, steps=5, replacement=False, generator=generator)
        params, inner = inner_loop.stacked(state.params, algorithm.initial_inner(state.params), tasks=5)
        losses = inner_loop.run(params, inner, take_batches(tasks.support_x, tasks.support_y, drawn))
        step_size = 1 - step / outer_steps
        phi = {name: p + step_size * (params[name] - p).mean(0) for name, p in state.params.items()}
        state = replace(state, params=phi, inner=replace(inner, v={n: v.mean(0) for n, v in inner.v.items()}))
        if step % 50 == 0:
            print(f"step {step}: inner loss {losses.mean():.3f}")

    result = measure(algorithm, state, tr.EpisodeSampler(splits.val, way=5, shots=1, queries=1), episodes, seed=0)
    print(f"validation classes: {result}")
    return result.inductive.mean


if __name__ == "__main__":
    main()
