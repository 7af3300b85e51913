"""How well rejection tells images of other classes, and noise, from images of the known classes.

    python benchmarks/rejection.py omniglot-5way --shots 5 --episodes 200

In every episode a classifier with ``reject`` learns 5 classes of the test (or validation) split; then it sees one new
image of each class, one image of each of 5 other classes, and 5 images of noise. AUROC is that of the probability of
"none of these", over all images of all episodes; the shares are what is rejected at the threshold.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from torchreptile import FewShotClassifier
from torchreptile.data.loading import load_splits
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.training.weights import load_weights

WAY = 5


def auroc(known: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The probability that one of the others has a larger value than a known one; ties count half."""
    larger = (others[:, None] > known[None]).mean()
    return float(larger + 0.5 * (others[:, None] == known[None]).mean())


def noise(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Uniform noise, and sparse black dots on white, in turn."""
    grey = torch.rand(shape, generator=generator)
    dots = (torch.rand(shape, generator=generator) > 0.1).float()
    return torch.where((torch.arange(shape[0]) % 2 == 0).view(-1, 1, 1, 1), grey, dots)


def main() -> None:
    """Measure and print one line per kind of image."""
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--split", default="test")
    parser.add_argument("--reject", type=float, default=0.05)
    arguments = parser.parse_args()
    weights, generator = load_weights(arguments.weights), torch.Generator().manual_seed(0)
    store = load_splits(weights.config.task).get(arguments.split)
    sampler = EpisodeSampler(store, 2 * WAY, arguments.shots, queries=1)
    kinds = ("known", "other classes", "noise")
    none: dict[str, list[float]] = {kind: [] for kind in kinds}
    rejected: dict[str, list[bool]] = {kind: [] for kind in kinds}
    right, softmax = [], []
    for _ in range(arguments.episodes):
        episode = sampler.sample(1, generator)
        support = (255 * episode.support_x[0, : WAY * arguments.shots]).round().byte()
        labels = episode.support_y[0, : WAY * arguments.shots].tolist()
        classifier = FewShotClassifier(weights, reject=arguments.reject).fit(support, labels)
        queries = episode.query_x[0]
        images = (255 * torch.cat([queries, noise(queries[:WAY].shape, generator)])).round().byte()
        probabilities = classifier.predict_proba(images)
        for kind, part in zip(kinds, np.split(probabilities, 3), strict=True):
            none[kind] += part[:, -1].tolist()
            rejected[kind] += (part.argmax(1) == WAY).tolist()
        right += (probabilities[:WAY, :WAY].argmax(1) == np.arange(WAY)).tolist()
        plain = replace(classifier.fitted_, rejection=None)
        softmax += plain.probabilities(images[2 * WAY :]).max(1).tolist()
    split, count = arguments.split, arguments.episodes
    print(f"{arguments.weights}, {WAY}-way {arguments.shots}-shot, {split} classes, {count} episodes, seed 0")
    print(f"without rejection: accuracy {np.mean(right):.2%}, mean confidence on noise {np.mean(softmax):.2%}")
    known = np.array(none["known"])
    for kind in kinds:
        share, count = float(np.mean(rejected[kind])), len(rejected[kind])
        margin = 1.96 * math.sqrt(share * (1 - share) / count)
        area = "" if kind == "known" else f", AUROC {auroc(known, np.array(none[kind])):.3f}"
        print(f"{kind}: {share:.1%} ± {100 * margin:.1f} rejected{area}")


if __name__ == "__main__":
    main()
