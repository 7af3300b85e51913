"""Accuracy and time of FewShotClassifier.fit and predict, for several numbers of classes and images.

    python benchmarks/classifier.py --weights omniglot-5way --tasks 5x1 20x5 --episodes 100

Tasks are WAYxSHOTS on test classes of the weights' own data set, with two queries per class, labelled inductively.
Times are medians over episodes, for images in memory, with ``--threads`` threads; the first episode is a warm-up.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from torchreptile import EpisodeSampler, FewShotClassifier
from torchreptile.core.environment import environment
from torchreptile.data.loading import load_splits
from torchreptile.training.evaluation.results import Accuracy
from torchreptile.training.weights import load_weights

QUERIES = 2


def main() -> None:
    """Measure every task size and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="omniglot-5way")
    parser.add_argument("--tasks", nargs="+", default=["5x1", "5x5", "3x1", "10x1", "20x1", "20x5"])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    weights = load_weights(args.weights)
    store = load_splits(weights.config.task).test
    env = environment()
    print(f"{args.weights}, {args.episodes} episodes, {args.threads} threads, {env['processor']}, torch {env['torch']}")
    for task in args.tasks:
        way, shots = map(int, task.split("x"))
        sampler, generator = EpisodeSampler(store, way, shots, QUERIES), torch.Generator().manual_seed(0)
        classifier = FewShotClassifier(weights, steps=args.steps)
        scores, fits, predictions = [], [], []
        for _ in range(args.episodes + 1):
            episode = sampler.sample(1, generator)
            start = time.perf_counter()
            classifier.fit(episode.support_x[0], episode.support_y[0])
            fitted = time.perf_counter()
            predicted = classifier.predict(episode.query_x[0])
            done = time.perf_counter()
            scores.append(float((predicted == episode.query_y[0].numpy()).mean()))
            fits.append(1000 * (fitted - start))
            predictions.append(1000 * (done - fitted) / len(predicted))
        accuracy = Accuracy.over(torch.tensor(scores[1:], dtype=torch.float64))
        print(
            f"{way}-way {shots}-shot: {accuracy}, fit {statistics.median(fits[1:]):.0f} ms, "
            f"predict {statistics.median(predictions[1:]):.1f} ms per image",
            flush=True,
        )


if __name__ == "__main__":
    main()
