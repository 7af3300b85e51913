"""Matching Networks' row: Vinyals et al. 2016, arXiv 1606.04080.

On mini-ImageNet's usual split the numbers are those of Ravi and Larochelle 2017 and, at 20-way, of Li et al. 2017.
The paper gives neither the number of reads nor of fine-tuning steps: those of the forms are ours
(docs/algorithms/matching.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchreptile.core.config.algorithm import AlgorithmRow, AlgorithmSettings, Form, Published
from torchreptile.core.config.config import Config
from torchreptile.core.config.validation import at_least, positive

OMNIGLOT_SOURCE = "Vinyals et al. 2016, table 1"
MINI_SOURCE = "Ravi and Larochelle 2017, table 1"
MINI_20_WAY_SOURCE = "Li et al. 2017, table 3"


@dataclass(frozen=True)
class MatchingSettings(AlgorithmSettings):
    """Settings of Matching Networks."""

    fce_reads: int = 0
    """matching: reads of the support set by the attention LSTM of the full context embeddings; 0 means without."""
    attention_scale: float = 1.0
    """matching: what cosines are multiplied by before the softmax; 1 is the paper's equation, by which five classes can
    get no more than 65% of the attention and training is slow."""

    def check_values(self) -> None:
        """Refuse a negative number of reads and a scale that is not positive."""
        at_least(0, fce_reads=self.fce_reads)
        positive(attention_scale=self.attention_scale)


def image_settings(config: Config) -> dict[str, Any]:
    """Return settings for images: training tasks have the way and shots of the test tasks.

    Vinyals et al. 2016, section 2.2, who published no optimiser. 15 queries per class and one task per step follow Ravi
    and Larochelle (ICLR 2017); Adam at 1e-3 follows Chen et al. (ICLR 2019), whose code scales the cosines by 100. The
    scale of 10 and the annealing are our choice.
    """
    return {
        "attention_scale": 10.0, "train_shots": 0, "train_queries": 15, "meta_batch": 1,
        "outer_optimizer": "adam", "outer_step_size": 1e-3, "outer_steps": 75_000,
        "inner_optimizer": "sgd", "inner_lr": 0.01,
    }  # fmt: skip


ROW = AlgorithmRow(
    name="matching",
    title="Matching Networks",
    implementation="torchreptile.algorithms.matching_networks:MatchingNetworks",
    settings=MatchingSettings,
    learns_from_queries=True,
    trains_by_steps=False,
    adapts_by_steps=False,
    compares_embeddings=True,
    own_training_way=True,
    change_image_settings=image_settings,
    forms={
        "FCE": Form("Matching Networks with full context embeddings", {"fce_reads": 3}),
        "fine-tuned": Form("Matching Networks, fine-tuned", {"finetune_steps": 5}),
    },
    published={
        ("", "omniglot", 5, 1, False): Published(98.1, None, OMNIGLOT_SOURCE),
        ("", "omniglot", 5, 5, False): Published(98.9, None, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 1, False): Published(93.8, None, OMNIGLOT_SOURCE),
        ("", "omniglot", 20, 5, False): Published(98.5, None, OMNIGLOT_SOURCE),
        ("fine-tuned", "omniglot", 5, 1, False): Published(97.9, None, OMNIGLOT_SOURCE),
        ("fine-tuned", "omniglot", 5, 5, False): Published(98.7, None, OMNIGLOT_SOURCE),
        ("fine-tuned", "omniglot", 20, 1, False): Published(93.5, None, OMNIGLOT_SOURCE),
        ("fine-tuned", "omniglot", 20, 5, False): Published(98.7, None, OMNIGLOT_SOURCE),
        ("", "mini-imagenet", 5, 1, False): Published(43.4, 0.78, MINI_SOURCE),
        ("", "mini-imagenet", 5, 5, False): Published(51.09, 0.71, MINI_SOURCE),
        ("FCE", "mini-imagenet", 5, 1, False): Published(43.56, 0.84, MINI_SOURCE),
        ("FCE", "mini-imagenet", 5, 5, False): Published(55.31, 0.73, MINI_SOURCE),
        ("FCE", "mini-imagenet", 20, 1, False): Published(17.31, None, MINI_20_WAY_SOURCE),
        ("FCE", "mini-imagenet", 20, 5, False): Published(22.69, None, MINI_20_WAY_SOURCE),
    },
)
