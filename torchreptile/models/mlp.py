"""The network for function fitting: fully connected layers, and T copies of them as batched matrix products.

Reptile's has two hidden layers of 64 units: 4,353 parameters for one input and output (Nichol et al. 2018, section 4;
their code uses tanh, the default here, and states that the paper used ReLU). MAML's has two of 40 with ReLU: 1,761
parameters (Finn et al. 2017, section 5.1). Weights are drawn by PyTorch's default for linear layers, as in Reptile's
code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from torchreptile.core.config.network import Activation
from torchreptile.core.errors import ConfigError
from torchreptile.models.built_in import BuiltInNetwork, ExecutionRequest, Params
from torchreptile.models.execution.execution import Execution
from torchreptile.models.execution.generic import GENERIC
from torchreptile.models.losses import are_values, task_losses

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


@final
class MLP(BuiltInNetwork):
    """A multilayer perceptron: ``layers`` hidden layers of ``units`` units, and a linear head.

    Its output for a point does not depend on the other points of a batch.

    Example:
        >>> import torch
        >>> network = MLP((1,), outputs=1, units=64, layers=2, activation="tanh")
        >>> sum(p.numel() for p in network.parameters())
        4353
        >>> tuple(network(torch.zeros(10, 1)).shape)
        (10, 1)
    """

    independent_outputs = True

    def __init__(self, shape: tuple[int], outputs: int, units: int, layers: int, activation: Activation) -> None:
        """Build the network with weights drawn from torch's global generator.

        Args:
            shape: (inputs,), numbers of a point.
            outputs: values to predict of a point.
            units: of each hidden layer.
            layers: number of hidden layers.
            activation: tanh or relu.
        """
        super().__init__()
        sizes = [*shape, *[units] * layers]
        self.hidden = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(layers))
        self.head = nn.Linear(sizes[-1], outputs)
        self.activation: Activation = activation
        self.names = [name.removesuffix(".weight") for name, p in self.named_parameters() if p.ndim == 2]

    def execution(self, request: ExecutionRequest) -> Execution | None:
        """Return batched matrix products for auto and matmul; loop, vmap and compiled run as for any module.

        Args:
            request: the requested execution, and what it is for.

        Raises:
            ConfigError: an execution for images was requested.
        """
        if request.name in GENERIC:
            return None
        if request.name not in ("auto", "matmul"):
            raise ConfigError(
                f"execution {request.name} is for images; functions run with matmul, loop, vmap or compiled"
            )
        by_name = request.name == "matmul"
        reason = "as requested" if by_name else "small layers run as batched matrix products over all tasks"
        gradient = self.loss_and_gradient
        return Execution(
            "matmul", reason, self.forward_stacked, loss_and_gradient=gradient, differentiable_gradient=gradient
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the values (B, outputs) of points (B, inputs)."""
        for layer in self.hidden:
            x = ACTIVATIONS[self.activation](layer(x))
        out: Tensor = self.head(x)
        return out

    def forward_stacked(self, params: Params, x: Tensor) -> Tensor:
        """Return the outputs of T networks: points (T, B, inputs), parameters (T, ...) each -> (T, B, outputs)."""
        return self._activations(params, x)[-1]

    def loss_and_gradient(self, params: Params, x: Tensor, y: Tensor) -> tuple[Tensor, Params]:
        """Return each task's mean squared error (T,) and its gradient, by explicit backpropagation.

        The result is differentiable by autograd, for second-order algorithms.

        Args:
            params: by name, (T, ...) each.
            x: (T, B, inputs) points.
            y: (T, B, targets) values.
        """
        assert are_values(y)
        activations = self._activations(params, x)
        outputs = activations[-1].to(params["head.bias"].dtype)
        back = (outputs - y) * (2 / (y.shape[1] * y.shape[2]))
        gradient: Params = {}
        for number in range(len(self.names) - 1, -1, -1):
            name, below = self.names[number], activations[number]
            gradient[f"{name}.weight"], gradient[f"{name}.bias"] = back.mT @ below, back.sum(1)
            if number:
                slope = 1 - below.square() if self.activation == "tanh" else (below > 0).to(below.dtype)
                back = (back @ params[f"{name}.weight"]) * slope
        return task_losses(outputs, y), {name: gradient[name] for name in params}

    def _activations(self, params: Params, x: Tensor) -> list[Tensor]:
        """Return the points, the activations of every hidden layer, and the outputs."""
        activations = [x]
        for name in self.names:
            out = torch.baddbmm(params[f"{name}.bias"].unsqueeze(1), activations[-1], params[f"{name}.weight"].mT)
            activations.append(out if name == "head" else ACTIVATIONS[self.activation](out))
        return activations
