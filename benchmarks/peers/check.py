"""Check that all contestants do the same work: equal weights and images must give equal losses."""

from __future__ import annotations

import numpy as np
import torch
from contestants import REFERENCE, Contestant
from environments import UnavailableError
from launch import FailedError, Running
from with_torchreptile import CPU, settings
from work import INNER_BATCH, INNER_STEPS, NETWORKS, PROTOCOLS, TASKS, WAY, Case

from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.data.minibatches import minibatches
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.experiments.benchmark.bench import random_store
from torchreptile.models.blueprint import initial_params
from torchreptile.models.conv4.network import for_images

# Relative tolerances in fp32, one per outer step. The second step starts from the first one's rounding errors: where
# they decide which pixel of a pooling window is largest, the gradient jumps (in float64 all digits agree).
TOLERANCES = (1e-4, 1e-3)
SEED = 1


def make_case(network: str, rules: str, eps: float) -> Case:
    """Return initial weights, and the images that torchreptile draws in its first outer steps from ``SEED``."""
    shape, shots = NETWORKS[network].image_shape, PROTOCOLS[rules].shots
    sampler = EpisodeSampler(random_store(shape, CPU), WAY, settings(PROTOCOLS[rules]).task.images_per_class, queries=0)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = [], []
    for _ in range(len(TOLERANCES)):
        episodes = sampler.sample(TASKS, generator)
        drawn = minibatches(TASKS, WAY * shots, INNER_BATCH, INNER_STEPS, replacement=False, generator=generator)
        x, y = zip(*take_batches(episodes.support_x, episodes.support_y, drawn), strict=True)
        images.append((torch.stack(x) * 255).round().to(torch.uint8))
        labels.append(torch.stack(y))
    weights = {name: p.numpy() for name, p in initial_params(for_images, shape, WAY, seed=0).items()}
    return Case(weights, torch.stack(images).numpy(), torch.stack(labels).numpy(), SEED, eps)


def losses_of(contestant: Contestant, network: str, case: str, threads: int) -> np.ndarray:
    """Return the losses (outer steps, inner steps, tasks) of a contestant in a new process."""
    with Running(contestant, network, case, threads, warm_up=False) as running:
        return running.losses()


def check(contestants: list[Contestant], network: str, cases: dict[str, str], threads: int) -> bool:
    """Print the difference of each contestant's losses to the reference's.

    Args:
        contestants: the contestants to check.
        network: name of the network.
        cases: file with the case, by rules.
        threads: threads per contestant.

    Returns:
        False if a difference is too large or a contestant fails.
    """
    expected: dict[str, np.ndarray] = {}
    good = True
    for contestant in contestants:
        rules = contestant.rules
        if rules not in expected:
            expected[rules] = losses_of(REFERENCE[rules], network, cases[rules], threads)
        try:
            found = losses_of(contestant, network, cases[rules], threads)
        except UnavailableError as error:
            print(f"{contestant!s:45} unavailable: {error}", flush=True)
            continue
        except FailedError as error:
            good = False
            print(f"{contestant!s:45} FAILED: {error}", flush=True)
            continue
        distances = furthest(found, expected[rules])
        same = all(distance <= most for distance, most in zip(distances, TOLERANCES, strict=True))
        good = good and same
        shown = " and ".join(f"{distance:.1e}" for distance in distances)
        print(
            f"{contestant!s:45} {'same work' if same else 'DIFFERENT'}: {found.size} losses within {shown}", flush=True
        )
    return good


def furthest(found: np.ndarray, expected: np.ndarray) -> list[float]:
    """Return the largest relative difference of losses in each outer step.

    A contestant that reports only the mean over tasks is compared with the mean.
    """
    if found.shape[2] == 1:
        expected = expected.mean(2, keepdims=True)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return [float("inf")] * len(expected)
    distances: list[float] = (np.abs(found - expected) / np.abs(expected)).max((1, 2)).tolist()
    return distances
