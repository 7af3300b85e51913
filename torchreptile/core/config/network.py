"""The network that functions are fitted by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchreptile.core.config.validation import at_least, check_types

Activation = Literal["tanh", "relu"]


@dataclass(frozen=True)
class NetworkConfig:
    """The network that functions are fitted by; images have the network published with the algorithm, or yours."""

    mlp_units: int = 64
    """Functions: units of every hidden layer of the network."""
    mlp_layers: int = 2
    """Functions: hidden layers."""
    mlp_activation: Activation = "tanh"
    """Functions: tanh or relu, after every hidden layer."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(1, mlp_units=self.mlp_units, mlp_layers=self.mlp_layers)
