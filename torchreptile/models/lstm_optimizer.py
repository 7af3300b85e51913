"""The meta-learned optimiser of Ravi and Larochelle 2017: an LSTM whose cell state is the learner's weights.

Every weight is a coordinate. All coordinates share the optimiser's parameters, and each has its own state. An ordinary
LSTM reads loss and gradient, and its output h sets the gates of the update (section 3.1):

    i = sigmoid(W_I [h, theta, i before] + b_I)    f = sigmoid(W_F [h, theta, f before] + b_F)
    theta <- f * theta - i * gradient

As in the authors' code, "before" is the gate's last value before the sigmoid, 0 at first.

Shapes: M coordinates (of all tasks together), U units. Coordinates are the last axis, so that each gate is contiguous
in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.models.built_in import Params

INPUTS = 4  # loss and gradient, two numbers each
P = 10.0  # magnitudes below exp(-P) are given linearly, larger ones by their logarithm
SPREAD = 0.01  # fresh weights are uniform in [-SPREAD, SPREAD]
FORGET_BIAS = (4.0, 5.0)  # at first weights are retained
INPUT_BIAS = (-5.0, -4.0)  # and learning rates are small


@dataclass(frozen=True, eq=False)
class CoordinateState:
    """The optimiser's state of M coordinates.

    Attributes:
        hidden: (U, M) the ordinary LSTM's output.
        cell: (U, M) the ordinary LSTM's cell.
        forget: (M,) the forget gate's last value before the sigmoid.
        admit: (M,) the input gate's last value before the sigmoid.
    """

    hidden: Tensor
    cell: Tensor
    forget: Tensor
    admit: Tensor

    @classmethod
    def fresh(cls, units: int, like: Tensor) -> CoordinateState:
        """Return the state before the first update: all zeros.

        Args:
            units: U.
            like: (M,) a tensor with the dtype and device to use.
        """
        hidden, cell = (like.new_zeros(units, len(like)) for _ in range(2))
        return cls(hidden, cell, torch.zeros_like(like), torch.zeros_like(like))


def fresh_weights(units: int, generator: torch.Generator) -> Params:
    """Return freshly drawn parameters of the optimiser by name, on the CPU.

    Args:
        units: U, of the ordinary LSTM.
        generator: draws the weights.
    """

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
    """Return two inputs of order 1 per number: (...) -> (2, ...).

    They are log|x| / P and sign(x) for |x| >= exp(-P), else -1 and exp(P) * x. Andrychowicz et al. 2016 (arXiv
    1606.04474), appendix A.

    Example:
        >>> import torch
        >>> preprocessed(torch.tensor([1.0, -1.0, 0.0]))
        tensor([[ 0.,  0., -1.],
                [ 1., -1.,  0.]])
    """
    large = x.abs() >= math.exp(-P)
    size = torch.where(large, x.abs().clamp(min=math.exp(-P)).log() / P, -1.0)
    return torch.stack([size, torch.where(large, x.sign(), math.exp(P) * x)])


def update(
    weights: Params, theta: Tensor, gradient: Tensor, inputs: Tensor, state: CoordinateState
) -> tuple[Tensor, CoordinateState]:
    """Update all coordinates once: theta <- f * theta - i * gradient.

    Args:
        weights: the optimiser's parameters by name.
        theta: (M,) the learner's weights.
        gradient: (M,) of the learner's loss.
        inputs: (4, M) loss and gradient, preprocessed.
        state: the state before; not modified.

    Returns:
        The learner's next weights (M,), and the next state.
    """
    units = len(state.hidden)
    gates = torch.addmm(weights["lstm.bias"].unsqueeze(1), weights["lstm.weight"], torch.cat([inputs, state.hidden]))
    admit, forget, new, show = torch.split(gates, units)
    cell = forget.sigmoid() * state.cell + admit.sigmoid() * new.tanh()
    hidden = show.sigmoid() * cell.tanh()
    retain = _gate(weights["forget.weight"], weights["forget.bias"], hidden, theta, state.forget)
    rate = _gate(weights["admit.weight"], weights["admit.bias"], hidden, theta, state.admit)
    return retain.sigmoid() * theta - rate.sigmoid() * gradient, CoordinateState(hidden, cell, retain, rate)


def _gate(weight: Tensor, bias: Tensor, hidden: Tensor, theta: Tensor, before: Tensor) -> Tensor:
    """Return a gate's value before the sigmoid, (M,)."""
    units = len(hidden)
    return weight[:units] @ hidden + weight[units] * theta + weight[units + 1] * before + bias
