"""The published accuracies, and where they stand.

Sources: [Reptile] Nichol, Achiam, Schulman 2018, arXiv 1803.02999, tables 1 and 2 (first-order MAML as [MAML] or
[Reptile] ran it); [MAML] Finn, Abbeel, Levine 2017, arXiv 1703.03400, table 1; [MANN] Santoro et al. 2016, arXiv
1605.06065, table 1; [Meta-LSTM] Ravi, Larochelle, ICLR 2017, table 1; its 20-way cells are from Li et al. 2017, arXiv
1707.09835 (Meta-SGD).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published accuracy.

    Attributes:
        accuracy, margin: percent, with the margin as printed in the source; None where none is printed.
        source: where it stands.
    """

    accuracy: float
    margin: float | None
    source: str

    def __str__(self) -> str:
        """For people: ``97.68% +- 0.04``."""
        return f"{self.accuracy:.2f}%" + (f" ± {self.margin:.2f}" if self.margin is not None else "")


REPTILE_SOURCE = "Nichol et al. 2018, table 2"
REPTILE_MINI_SOURCE = "Nichol et al. 2018, table 1"
MANN_SOURCE = "Santoro et al. 2016, table 1"
META_LSTM_SOURCE = "Ravi & Larochelle 2017, table 1"
META_LSTM_20WAY_SOURCE = "Li et al. 2017 (Meta-SGD)"

# Keyed by (algorithm, data set, way, shots, transductive).
PUBLISHED: dict[tuple[str, str, int, int, bool], Published] = {
    ("reptile", "omniglot", 5, 1, False): Published(95.39, 0.09, REPTILE_SOURCE),
    ("reptile", "omniglot", 5, 1, True): Published(97.68, 0.04, REPTILE_SOURCE),
    ("reptile", "omniglot", 5, 5, False): Published(98.90, 0.10, REPTILE_SOURCE),
    ("reptile", "omniglot", 5, 5, True): Published(99.48, 0.06, REPTILE_SOURCE),
    ("reptile", "omniglot", 20, 1, False): Published(88.14, 0.15, REPTILE_SOURCE),
    ("reptile", "omniglot", 20, 1, True): Published(89.43, 0.14, REPTILE_SOURCE),
    ("reptile", "omniglot", 20, 5, False): Published(96.65, 0.33, REPTILE_SOURCE),
    ("reptile", "omniglot", 20, 5, True): Published(97.12, 0.32, REPTILE_SOURCE),
    ("reptile", "mini-imagenet", 5, 1, False): Published(47.07, 0.26, REPTILE_MINI_SOURCE),
    ("reptile", "mini-imagenet", 5, 1, True): Published(49.97, 0.32, REPTILE_MINI_SOURCE),
    ("reptile", "mini-imagenet", 5, 5, False): Published(62.74, 0.37, REPTILE_MINI_SOURCE),
    ("reptile", "mini-imagenet", 5, 5, True): Published(65.99, 0.58, REPTILE_MINI_SOURCE),
    ("foml", "mini-imagenet", 5, 1, True): Published(48.07, 1.75, REPTILE_MINI_SOURCE),
    ("foml", "mini-imagenet", 5, 5, True): Published(63.15, 0.91, REPTILE_MINI_SOURCE),
    ("foml", "omniglot", 5, 1, True): Published(98.3, 0.5, REPTILE_SOURCE),
    ("foml", "omniglot", 5, 5, True): Published(99.2, 0.2, REPTILE_SOURCE),
    ("foml", "omniglot", 20, 1, True): Published(89.4, 0.5, REPTILE_SOURCE),
    ("foml", "omniglot", 20, 5, True): Published(97.9, 0.1, REPTILE_SOURCE),
    # The tables of the field quote the 2nd and 5th presentation of a class as 1-shot and 5-shot.
    ("mann", "omniglot", 5, 1, False): Published(82.8, None, f"{MANN_SOURCE}, 2nd presentation"),
    ("mann", "omniglot", 5, 5, False): Published(94.9, None, f"{MANN_SOURCE}, 5th presentation"),
    # Running averages over the support set label the queries, so nothing is shared among these.
    ("meta-lstm", "mini-imagenet", 5, 1, False): Published(43.44, 0.77, META_LSTM_SOURCE),
    ("meta-lstm", "mini-imagenet", 5, 5, False): Published(60.60, 0.71, META_LSTM_SOURCE),
    ("meta-lstm", "mini-imagenet", 20, 1, False): Published(16.70, None, META_LSTM_20WAY_SOURCE),
    ("meta-lstm", "mini-imagenet", 20, 5, False): Published(26.06, None, META_LSTM_20WAY_SOURCE),
}

# Of measures that an algorithm has for itself, keyed by (algorithm, data set, way, measure).
PUBLISHED_FURTHER: dict[tuple[str, str, int, str], Published] = {
    ("mann", "omniglot", 5, f"presentation {number}"): Published(accuracy, None, MANN_SOURCE)
    for number, accuracy in {1: 36.4, 2: 82.8, 3: 91.0, 4: 92.6, 5: 94.9, 10: 98.1}.items()
}


def published(algorithm: str, dataset: str, way: int, shots: int, transductive: bool) -> Published | None:
    """The published accuracy of that cell, or None where none was published."""
    return PUBLISHED.get((algorithm, dataset, way, shots, transductive))
