"""Which few-shot learner is trained, and the settings that single ones have for themselves."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from torchreptile.core.config.validation import at_least, at_most, check_types, positive, require

AlgorithmName = Literal[
    "reptile", "foml", "maml", "fomaml", "anil", "meta-sgd",
    "matching", "protonet", "pretrained", "scratch", "mann", "meta-lstm",
]  # fmt: skip
Activation = Literal["tanh", "relu"]
FIT_FUNCTIONS = ("reptile", "foml", "maml", "fomaml", "anil", "meta-sgd", "meta-lstm", "scratch")
# Whose setting it is, of those that one algorithm has for itself.
OWNERS: dict[str, AlgorithmName] = {
    "foml_tail": "foml",
    "fce_reads": "matching",
    "attention_scale": "matching",
    "pretrained_head": "pretrained",
    **dict.fromkeys(("mann_units", "mann_slots", "mann_width", "mann_heads", "mann_decay", "mann_jitter"), "mann"),
    **dict.fromkeys(("meta_lstm_units", "meta_lstm_filters"), "meta-lstm"),
}


@dataclass(frozen=True)
class MethodConfig:
    """Which few-shot learner is trained, and what single ones have for themselves."""

    algorithm: AlgorithmName = "reptile"
    """reptile; foml (first-order MAML as the Reptile paper has it: the last inner step's change alone); maml (through
    the inner steps); fomaml (first-order MAML as the MAML paper has it: the gradient of the queries' loss at the
    adapted weights); anil (maml that adapts the head alone); meta-sgd (maml that learns a rate for every weight);
    matching (Matching Networks); protonet (Prototypical Networks); pretrained (no meta-learning: features of a
    classifier of all training classes); scratch (nothing learned before the task); mann (a network with an external
    memory); meta-lstm (a learned optimiser)."""
    foml_tail: int = 0
    """foml: images per class kept apart for the last inner step; 0 means a shared tail."""
    fce_reads: int = 0
    """matching: reads of the support set by the attention LSTM of the full context embeddings; 0 means without."""
    attention_scale: float = 1.0
    """matching: what cosines are multiplied by before the softmax; 1 is the paper's equation, by which five classes can
    get no more than 65% of the attention and training is slow."""
    pretrained_head: Literal["linear", "cosine"] = "linear"
    """pretrained: the classifier, of training classes and then of a task's: linear (Baseline of Chen et al. 2019) or
    cosine (their Baseline++)."""
    mann_units: int = 200
    """mann: units of the LSTM controller."""
    mann_slots: int = 128
    """mann: rows of the memory."""
    mann_width: int = 40
    """mann: numbers in a row of the memory."""
    mann_heads: int = 4
    """mann: read heads, which are also the least used rows that may be written."""
    mann_decay: float = 0.99
    """mann: what remains of a row's usage from one image to the next."""
    mann_jitter: float = 0.0
    """mann: how far training images are moved and turned at random: 1 is up to a tenth of their width and 11 degrees,
    0 not at all."""
    meta_lstm_units: int = 20
    """meta-lstm: units of the LSTM that reads losses and gradients."""
    meta_lstm_filters: int = 32
    """meta-lstm: filters of every convolution of the learner."""
    mlp_units: int = 64
    """Functions: units of every hidden layer of the network."""
    mlp_layers: int = 2
    """Functions: hidden layers."""
    mlp_activation: Activation = "tanh"
    """Functions: tanh or relu, after every hidden layer."""

    def __post_init__(self) -> None:
        check_types(self)
        self._check_memory()
        at_least(1, meta_lstm_units=self.meta_lstm_units, meta_lstm_filters=self.meta_lstm_filters)
        at_least(1, mlp_units=self.mlp_units, mlp_layers=self.mlp_layers)
        at_least(0, foml_tail=self.foml_tail, fce_reads=self.fce_reads)
        positive(attention_scale=self.attention_scale)
        self._check_owners()

    def _check_owners(self) -> None:
        """Settings of one algorithm alone are left as they are by the others."""
        for field in dataclasses.fields(self):
            owner, value = OWNERS.get(field.name), getattr(self, field.name)
            require(
                owner in (None, self.algorithm) or value == field.default,
                f"{field.name} is {value}, but algorithm is {self.algorithm}; it is for {owner}",
            )

    def _check_memory(self) -> None:
        at_least(1, mann_units=self.mann_units, mann_width=self.mann_width, mann_heads=self.mann_heads)
        at_least(0, mann_decay=self.mann_decay, mann_jitter=self.mann_jitter)
        at_most(1, mann_decay=self.mann_decay)
        require(
            self.mann_slots >= self.mann_heads,
            f"mann_slots is {self.mann_slots}; it must be at least mann_heads ({self.mann_heads})",
        )

    @property
    def learns_from_queries(self) -> bool:
        """Whether its training tasks have a query set of ``train_queries`` images per class."""
        return self.algorithm not in ("reptile", "foml", "pretrained", "scratch", "mann")

    @property
    def takes_inner_steps(self) -> bool:
        """Whether it trains step by step in every task, so that ``inner_steps`` mean something."""
        return self.algorithm not in ("matching", "protonet", "pretrained", "scratch", "mann")

    @property
    def takes_plain_steps(self) -> bool:
        """Whether its inner steps are the inner optimiser's, and nothing goes through them."""
        return self.algorithm in ("reptile", "foml", "scratch")

    @property
    def compares_embeddings(self) -> bool:
        """Whether queries are labelled by comparing embeddings; such an embedding may be fine-tuned in the task."""
        return self.algorithm in ("matching", "protonet")

    @property
    def adapts_by_steps(self) -> bool:
        """Whether it trains step by step in an evaluation episode, so that ``eval_steps`` mean something."""
        return not self.compares_embeddings and self.algorithm != "mann"

    @property
    def adapts_by_sgd_alone(self) -> bool:
        """Whether its inner steps are plain SGD, as what goes through them or beside them demands."""
        return self.algorithm in ("maml", "fomaml", "anil", "meta-sgd")
