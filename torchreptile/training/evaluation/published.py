"""The published accuracies, and where they stand.

Sources: [Reptile] Nichol, Achiam, Schulman 2018, arXiv 1803.02999, tables 1 and 2 (first-order MAML too, by MAML's own
code; of first-order MAML in Reptile's frame, ``foml``, nothing was published); [MAML] Finn, Abbeel, Levine 2017, arXiv
1703.03400, table 1; [Meta-SGD] Li, Zhou, Chen, Li 2017, arXiv 1707.09835, tables 2 and 3 (also of all others at
mini-ImageNet 20-way); [Matching Networks] Vinyals et al. 2016, arXiv 1606.04080, table 1, and on mini-ImageNet's usual
split [Meta-LSTM]; [Prototypical Networks] Snell, Swersky, Zemel 2017, arXiv 1703.05175, tables 1 and 2; [Baselines]
Chen et al. 2019, arXiv 1904.04232, table 2 (Conv-4) and, on Omniglot, the appendix; [MANN] Santoro et al. 2016, arXiv
1605.06065, table 1; [Meta-LSTM] Ravi and Larochelle, ICLR 2017, table 1; [ANIL] Raghu, Raghu, Bengio, Vinyals 2020,
arXiv 1909.09157, table 2, whose margins are standard deviations over three trainings.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published accuracy.

    Attributes:
        accuracy, margin: percent, with the margin as printed in the source; None if it prints none, or is not known.
        source: where it stands.
    """

    accuracy: float
    margin: float | None
    source: str

    def __str__(self) -> str:
        """For people: ``97.68% ± 0.04``."""
        return f"{self.accuracy:.2f}%" + ("" if self.margin is None else f" ± {self.margin:.2f}")


REPTILE_SOURCE = "Nichol et al. 2018, table 2"
REPTILE_MINI_SOURCE = "Nichol et al. 2018, table 1"
MAML_SOURCE = "Finn et al. 2017, table 1"
ANIL_SOURCE = "Raghu et al. 2020, table 2"
META_SGD_SOURCE = "Li et al. 2017, table 2"
META_SGD_MINI_SOURCE = "Li et al. 2017, table 3"
META_LSTM_SOURCE = "Ravi and Larochelle 2017, table 1"
MATCHING_SOURCE = "Vinyals et al. 2016, table 1"
MATCHING_MINI_SOURCE = META_LSTM_SOURCE  # who ran it on the split in use
PROTONET_SOURCE = "Snell et al. 2017, table 1"
PROTONET_MINI_SOURCE = "Snell et al. 2017, table 2"
MANN_SOURCE = "Santoro et al. 2016, table 1"
BASELINE_SOURCE = "Chen et al. 2019, appendix"
BASELINE_MINI_SOURCE = "Chen et al. 2019, table 2"

FIGURE_ONLY = "figure only"
"""What stands in place of a number for sine waves: Nichol et al. 2018 and Finn et al. 2017 print curves alone."""

# Keyed by (algorithm and its form, data set, way, shots, transductive).
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
    ("maml", "omniglot", 5, 1, True): Published(98.7, 0.4, MAML_SOURCE),
    ("maml", "omniglot", 5, 5, True): Published(99.9, 0.1, MAML_SOURCE),
    ("maml", "omniglot", 20, 1, True): Published(95.8, 0.3, MAML_SOURCE),
    ("maml", "omniglot", 20, 5, True): Published(98.9, 0.2, MAML_SOURCE),
    ("maml", "mini-imagenet", 5, 1, True): Published(48.70, 1.84, MAML_SOURCE),
    ("maml", "mini-imagenet", 5, 5, True): Published(63.11, 0.92, MAML_SOURCE),
    ("maml", "mini-imagenet", 20, 1, True): Published(16.49, 0.58, META_SGD_MINI_SOURCE),
    ("maml", "mini-imagenet", 20, 5, True): Published(19.29, 0.29, META_SGD_MINI_SOURCE),
    ("fomaml", "omniglot", 5, 1, True): Published(98.3, 0.5, REPTILE_SOURCE),
    ("fomaml", "omniglot", 5, 5, True): Published(99.2, 0.2, REPTILE_SOURCE),
    ("fomaml", "omniglot", 20, 1, True): Published(89.4, 0.5, REPTILE_SOURCE),
    ("fomaml", "omniglot", 20, 5, True): Published(97.9, 0.1, REPTILE_SOURCE),
    ("fomaml", "mini-imagenet", 5, 1, True): Published(48.07, 1.75, MAML_SOURCE),
    ("fomaml", "mini-imagenet", 5, 5, True): Published(63.15, 0.91, MAML_SOURCE),
    ("anil", "omniglot", 20, 1, True): Published(96.2, 0.5, ANIL_SOURCE),
    ("anil", "omniglot", 20, 5, True): Published(98.0, 0.3, ANIL_SOURCE),
    ("anil", "mini-imagenet", 5, 1, True): Published(46.7, 0.4, ANIL_SOURCE),
    ("anil", "mini-imagenet", 5, 5, True): Published(61.5, 0.5, ANIL_SOURCE),
    ("meta-sgd", "omniglot", 5, 1, True): Published(99.53, 0.26, META_SGD_SOURCE),
    ("meta-sgd", "omniglot", 5, 5, True): Published(99.93, 0.09, META_SGD_SOURCE),
    ("meta-sgd", "omniglot", 20, 1, True): Published(95.93, 0.38, META_SGD_SOURCE),
    ("meta-sgd", "omniglot", 20, 5, True): Published(98.97, 0.19, META_SGD_SOURCE),
    ("meta-sgd", "mini-imagenet", 5, 1, True): Published(50.47, 1.87, META_SGD_MINI_SOURCE),
    ("meta-sgd", "mini-imagenet", 5, 5, True): Published(64.03, 0.94, META_SGD_MINI_SOURCE),
    ("meta-sgd", "mini-imagenet", 20, 1, True): Published(17.56, 0.64, META_SGD_MINI_SOURCE),
    ("meta-sgd", "mini-imagenet", 20, 5, True): Published(28.92, 0.35, META_SGD_MINI_SOURCE),
    ("matching", "omniglot", 5, 1, False): Published(98.1, None, MATCHING_SOURCE),
    ("matching", "omniglot", 5, 5, False): Published(98.9, None, MATCHING_SOURCE),
    ("matching", "omniglot", 20, 1, False): Published(93.8, None, MATCHING_SOURCE),
    ("matching", "omniglot", 20, 5, False): Published(98.5, None, MATCHING_SOURCE),
    ("matching fine-tuned", "omniglot", 5, 1, False): Published(97.9, None, MATCHING_SOURCE),
    ("matching fine-tuned", "omniglot", 5, 5, False): Published(98.7, None, MATCHING_SOURCE),
    ("matching fine-tuned", "omniglot", 20, 1, False): Published(93.5, None, MATCHING_SOURCE),
    ("matching fine-tuned", "omniglot", 20, 5, False): Published(98.7, None, MATCHING_SOURCE),
    ("matching", "mini-imagenet", 5, 1, False): Published(43.40, 0.78, MATCHING_MINI_SOURCE),
    ("matching", "mini-imagenet", 5, 5, False): Published(51.09, 0.71, MATCHING_MINI_SOURCE),
    ("matching FCE", "mini-imagenet", 5, 1, False): Published(43.56, 0.84, MATCHING_MINI_SOURCE),
    ("matching FCE", "mini-imagenet", 5, 5, False): Published(55.31, 0.73, MATCHING_MINI_SOURCE),
    ("matching FCE", "mini-imagenet", 20, 1, False): Published(17.31, None, META_SGD_MINI_SOURCE),
    ("matching FCE", "mini-imagenet", 20, 5, False): Published(22.69, None, META_SGD_MINI_SOURCE),
    ("protonet", "omniglot", 5, 1, False): Published(98.8, None, PROTONET_SOURCE),
    ("protonet", "omniglot", 5, 5, False): Published(99.7, None, PROTONET_SOURCE),
    ("protonet", "omniglot", 20, 1, False): Published(96.0, None, PROTONET_SOURCE),
    ("protonet", "omniglot", 20, 5, False): Published(98.9, None, PROTONET_SOURCE),
    ("protonet", "mini-imagenet", 5, 1, False): Published(49.42, 0.78, PROTONET_MINI_SOURCE),
    ("protonet", "mini-imagenet", 5, 5, False): Published(68.20, 0.66, PROTONET_MINI_SOURCE),
    ("pretrained", "omniglot", 5, 1, False): Published(94.89, 0.45, BASELINE_SOURCE),
    ("pretrained", "omniglot", 5, 5, False): Published(99.12, 0.13, BASELINE_SOURCE),
    ("pretrained", "mini-imagenet", 5, 1, False): Published(42.11, 0.71, BASELINE_MINI_SOURCE),
    ("pretrained", "mini-imagenet", 5, 5, False): Published(62.53, 0.69, BASELINE_MINI_SOURCE),
    ("pretrained cosine", "omniglot", 5, 1, False): Published(95.41, 0.39, BASELINE_SOURCE),
    ("pretrained cosine", "omniglot", 5, 5, False): Published(99.38, 0.10, BASELINE_SOURCE),
    ("pretrained cosine", "mini-imagenet", 5, 1, False): Published(48.24, 0.75, BASELINE_MINI_SOURCE),
    ("pretrained cosine", "mini-imagenet", 5, 5, False): Published(66.43, 0.63, BASELINE_MINI_SOURCE),
    # The tables of the field quote the 2nd and 5th presentation of a class as 1-shot and 5-shot.
    ("mann", "omniglot", 5, 1, False): Published(82.8, None, f"{MANN_SOURCE}, 2nd presentation"),
    ("mann", "omniglot", 5, 5, False): Published(94.9, None, f"{MANN_SOURCE}, 5th presentation"),
    # Running averages over the support set label the queries, so nothing is shared among these.
    ("meta-lstm", "mini-imagenet", 5, 1, False): Published(43.44, 0.77, META_LSTM_SOURCE),
    ("meta-lstm", "mini-imagenet", 5, 5, False): Published(60.60, 0.71, META_LSTM_SOURCE),
    ("meta-lstm", "mini-imagenet", 20, 1, False): Published(16.70, None, META_SGD_MINI_SOURCE),
    ("meta-lstm", "mini-imagenet", 20, 5, False): Published(26.06, None, META_SGD_MINI_SOURCE),
}

# In which measure of its own a table's cell was measured, by (algorithm, shots), where it is not the common accuracy.
QUOTED: dict[tuple[str, int], str] = {("mann", 1): "presentation 2", ("mann", 5): "presentation 5"}

# Of measures that an algorithm has for itself, keyed by (algorithm, data set, way, measure).
PUBLISHED_FURTHER: dict[tuple[str, str, int, str], Published] = {
    ("mann", "omniglot", 5, f"presentation {number}"): Published(accuracy, None, MANN_SOURCE)
    for number, accuracy in {1: 36.4, 2: 82.8, 3: 91.0, 4: 92.6, 5: 94.9, 10: 98.1}.items()
}


def published(variant: str, dataset: str, way: int, shots: int, transductive: bool) -> Published | None:
    """The published accuracy of that cell, or None where none was published.

    Args:
        variant: the algorithm, and which form of it: ``Config.variant``.
        dataset, way, shots, transductive: the cell.
    """
    return PUBLISHED.get((variant, dataset, way, shots, transductive))


def published_measure(variant: str, dataset: str, way: int, shots: int, measure: str) -> Published | None:
    """The same by the name of a measure: transductive, inductive, or one that an algorithm has for itself.

    None for an accuracy in the common protocol whose published number is of another measure.
    """
    if measure in ("transductive", "inductive"):
        if (variant, shots) in QUOTED:
            return None
        return published(variant, dataset, way, shots, transductive=measure == "transductive")
    return PUBLISHED_FURTHER.get((variant, dataset, way, measure))
