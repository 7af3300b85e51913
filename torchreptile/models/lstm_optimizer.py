"""The learned optimiser of Ravi and Larochelle 2017: an LSTM whose cell is the learner's weights.

Every weight is a coordinate; all coordinates share the optimiser's parameters and have states of their own. An
ordinary LSTM reads loss and gradient, and from what it makes of them the gates of the update follow (section 3.1):

    i = sigmoid(W_I [h, theta, i before] + b_I)    f = sigmoid(W_F [h, theta, f before] + b_F)
    theta <- f * theta - i * gradient

As in the authors' code, a gate is told its own last value before the sigmoid, 0 at first.

Shapes: M coordinates (of all tasks together), U units; coordinates are the last axis, so that each gate is one piece
of memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.models.conv4.network import Params

INPUTS = 4  # loss and gradient, two numbers each
P = 10.0  # magnitudes below exp(-P) are told as they are, larger ones by their logarithm
SPREAD = 0.01  # fresh weights are uniform within it
FORGET_BIAS = (4.0, 5.0)  # weights are kept at first
INPUT_BIAS = (-5.0, -4.0)  # and learning rates small


@dataclass(frozen=True, eq=False)
class CoordinateState:
    """What the optimiser remembers of each coordinate.

    Attributes:
        hidden, cell: (U, M) of the ordinary LSTM.
        forget, admit: (M,) the gates' last values before the sigmoid.
    """

    hidden: Tensor
    cell: Tensor
    forget: Tensor
    admit: Tensor

    @classmethod
    def fresh(cls, units: int, like: Tensor) -> CoordinateState:
        """Before the first update; ``like``: (M,)."""
        hidden, cell = (like.new_zeros(units, len(like)) for _ in range(2))
        return cls(hidden, cell, torch.zeros_like(like), torch.zeros_like(like))


def fresh_weights(units: int, generator: torch.Generator) -> Params:
    """The optimiser's parameters before training, on the CPU."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(shape).uniform_(low, high, generator=generator)

    return {
        "lstm.weight": uniform(-SPREAD, SPREAD, 4 * units, INPUTS + units),
        "lstm.bias": uniform(-SPREAD, SPREAD, 4 * units),
        "forget.weight": uniform(-SPREAD, SPREAD, units + 2),
        "forget.bias": uniform(*FORGET_BIAS),
        "admit.weight": uniform(-SPREAD, SPREAD, units + 2),
        "admit.bias": uniform(*INPUT_BIAS),
    }


def preprocessed(x: Tensor) -> Tensor:
    """(...) -> (2, ...): logarithm of the size and sign, or -1 and the value scaled up where it is tiny.

    Andrychowicz et al. 2016, appendix A.
    """
    large = x.abs() >= math.exp(-P)
    size = torch.where(large, x.abs().clamp(min=math.exp(-P)).log() / P, -1.0)
    return torch.stack([size, torch.where(large, x.sign(), math.exp(P) * x)])


def update(
    weights: Params, theta: Tensor, gradient: Tensor, told: Tensor, state: CoordinateState
) -> tuple[Tensor, CoordinateState]:
    """One update of all coordinates.

    Args:
        weights: the optimiser's own.
        theta: (M,) the learner's weights.
        gradient: (M,) of the learner's loss.
        told: (4, M) loss and gradient, preprocessed.
        state: left as it was.

    Returns:
        The learner's next weights, and the state that goes with them.
    """
    units = len(state.hidden)
    gates = torch.addmm(weights["lstm.bias"].unsqueeze(1), weights["lstm.weight"], torch.cat([told, state.hidden]))
    admit, forget, new, show = torch.split(gates, units)
    cell = forget.sigmoid() * state.cell + admit.sigmoid() * new.tanh()
    hidden = show.sigmoid() * cell.tanh()
    keep = _gate(weights["forget.weight"], weights["forget.bias"], hidden, theta, state.forget)
    rate = _gate(weights["admit.weight"], weights["admit.bias"], hidden, theta, state.admit)
    return keep.sigmoid() * theta - rate.sigmoid() * gradient, CoordinateState(hidden, cell, keep, rate)


def _gate(weight: Tensor, bias: Tensor, hidden: Tensor, theta: Tensor, before: Tensor) -> Tensor:
    """(M,) before the sigmoid."""
    units = len(hidden)
    return weight[:units] @ hidden + weight[units] * theta + weight[units + 1] * before + bias
