"""Recall of the classes of an unbalanced support set, with and without class-balanced inner mini-batches.

    python benchmarks/unbalanced.py --weights omniglot-5way glyphs-5way --episodes 200

Classes are test classes of the weights' own data set. Both classifiers see the same support images and queries, four of
each class, labelled inductively; the difference is over all classes, paired by episode. The margins are 95% CIs.
"""

from __future__ import annotations

import argparse

import torch

from torchreptile import FewShotClassifier
from torchreptile.core.environment import environment
from torchreptile.data.image_store import ImageStore
from torchreptile.data.loading import load_splits
from torchreptile.training.weights import MetaWeights, load_weights

QUERIES = 4


def main() -> None:
    """Measure every combination of weights and support set and print a line of a Markdown table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="+", default=["omniglot-5way", "glyphs-5way"])
    parser.add_argument("--sizes", nargs="+", default=["1,5,5,5,5", "1,10,10,10,10", "1,1,1,1,10"])
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    env = environment()
    print(f"{args.episodes} episodes, {args.threads} threads, {env['processor']}, torch {env['torch']}")
    for name in args.weights:
        weights = load_weights(name)
        store = load_splits(weights.config.task).test
        for sizes in args.sizes:
            counts = [int(size) for size in sizes.split(",")]
            right = torch.stack([measured(weights, store, counts, seed) for seed in range(args.episodes)])
            print(f"| {name} | {sizes} | {' | '.join(cells(right, counts))} |", flush=True)


def measured(weights: MetaWeights, store: ImageStore, counts: list[int], seed: int) -> torch.Tensor:
    """Return (2, K), the recall of every class without and with balanced mini-batches, in one episode."""
    generator = torch.Generator().manual_seed(seed)
    support, labels, queries = [], [], []
    for label, drawn in enumerate(torch.randperm(len(store), generator=generator)[: len(counts)].tolist()):
        order = torch.randperm(int(store.class_sizes[drawn]), generator=generator) + int(store.class_starts[drawn])
        support.append(store.images[order[: counts[label]]])
        labels += [label] * counts[label]
        queries.append(store.images[order[-QUERIES:]])
    recalls = []
    for balanced in (False, True):
        classifier = FewShotClassifier(weights, balanced=balanced, seed=seed).fit(torch.cat(support), labels)
        truth = torch.arange(len(counts)).repeat_interleave(QUERIES)
        hits = torch.from_numpy(classifier.predict(torch.cat(queries))) == truth
        recalls.append(hits.view(len(counts), QUERIES).double().mean(1))
    return torch.stack(recalls)


def cells(right: torch.Tensor, counts: list[int]) -> list[str]:
    """Return recall of the smallest classes and of the others, each without and with balance, and the difference."""
    smallest = torch.tensor(counts) == min(counts)
    shown = [percent(right[:, way, part].mean(1)) for part in (smallest, ~smallest) for way in (0, 1)]
    difference = (right[:, 1] - right[:, 0]).mean(1)
    return [*shown, f"{100 * difference.mean():+.2f} ± {196 * difference.std() / len(difference) ** 0.5:.2f}"]


def percent(values: torch.Tensor) -> str:
    """Return a mean with its 95% CI, in percent."""
    return f"{100 * values.mean():.2f} ± {196 * values.std() / len(values) ** 0.5:.2f}"


if __name__ == "__main__":
    main()
