"""The network for functions: fully connected layers, and T of them as batched matrix products.

Reptile's has two hidden layers of 64 units (Nichol et al. 2018, the sine wave case study; their code has tanh, as here
by default, and says that the paper's has ReLU), MAML's two of 40 with ReLU (Finn et al. 2017, section 5.1). Weights are
drawn as PyTorch draws linear layers, which is what Reptile's code relies on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from torchreptile.core.config import Activation
from torchreptile.models.conv4.network import Params
from torchreptile.models.losses import are_values, task_losses

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


@final
class MLP(nn.Module):
    """``layers`` hidden layers of ``units`` units, and a linear head. No query can tell of another."""

    def __init__(self, shape: tuple[int], outputs: int, units: int, layers: int, activation: Activation) -> None:
        """For points of ``shape`` (inputs,) and as many values of each as ``outputs`` says."""
        super().__init__()
        sizes = [*shape, *[units] * layers]
        self.hidden = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(layers))
        self.head = nn.Linear(sizes[-1], outputs)
        self.activation: Activation = activation
        self.names = [name.removesuffix(".weight") for name, p in self.named_parameters() if p.ndim == 2]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        for layer in self.hidden:
            x = ACTIVATIONS[self.activation](layer(x))
        out: Tensor = self.head(x)
        return out

    def forward_stacked(self, params: Params, x: Tensor) -> Tensor:
        """T networks: parameters with a leading axis of T, (T, B, inputs) -> (T, B, outputs)."""
        return self._activations(params, x)[-1]

    def loss_and_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """Each task's mean squared error (T,), and its gradient by backpropagation written out.

        It is made of operations that autograd knows, so it can itself be differentiated, for second order.

        Args:
            params: (T, ...) each.
            x: (T, B, inputs).
            y: (T, B, targets).
        """
        assert are_values(y)
        seen = self._activations(params, x)
        outputs = seen[-1].to(params["head.bias"].dtype)
        back = (outputs - y) * (2 / (y.shape[1] * y.shape[2]))
        gradient: Params = {}
        for number in range(len(self.names) - 1, -1, -1):
            name, below = self.names[number], seen[number]
            gradient[f"{name}.weight"], gradient[f"{name}.bias"] = back.mT @ below, back.sum(1)
            if number:
                slope = 1 - below.square() if self.activation == "tanh" else (below > 0).to(below.dtype)
                back = (back @ params[f"{name}.weight"]) * slope
        return task_losses(outputs, y), {name: gradient[name] for name in params}

    def _activations(self, params: Params, x: Tensor) -> list[Tensor]:
        """The points, what every hidden layer makes of them, and the outputs."""
        seen = [x]
        for name in self.names:
            out = torch.baddbmm(params[f"{name}.bias"].unsqueeze(1), seen[-1], params[f"{name}.weight"].mT)
            seen.append(out if name == "head" else ACTIVATIONS[self.activation](out))
        return seen
