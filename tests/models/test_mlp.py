"""The network for functions: side by side against one by one, and its written-out gradients against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from torchreptile.core.errors import ConfigError
from torchreptile.models.blueprint import build_network
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.execution import stack
from torchreptile.models.losses import task_losses
from torchreptile.models.mlp import MLP

CPU = torch.device("cpu")


def network(
    shape: tuple[int, ...] = (1,), outputs: int = 1, units: int = 64, layers: int = 2, kind: str = "tanh"
) -> MLP:
    module = build_network(lambda s, o: MLP(s, o, units, layers, kind), shape, outputs, seed=3)
    assert isinstance(module, MLP)
    return module


def tasks(module: MLP, number: int = 3) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Different weights for every task, points and values, all in float64."""
    generator = torch.Generator().manual_seed(1)
    params = stack({name: p.detach().double() for name, p in module.named_parameters()}, number)
    for p in params.values():
        p += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    inputs, outputs = module.hidden[0].in_features, module.head.out_features
    x = torch.randn(number, 7, inputs, generator=generator, dtype=torch.float64)
    return params, x, torch.randn(number, 7, outputs, generator=generator, dtype=torch.float64)


def test_the_published_networks_have_as_many_numbers_as_they_should() -> None:
    for module, expected in ((network(), 64 + 64 + 64 * 64 + 64 + 64 + 1), (network(units=40, kind="relu"), 1761)):
        assert sum(p.numel() for p in module.parameters()) == expected


@pytest.mark.parametrize("kind", ["tanh", "relu"])
@pytest.mark.parametrize("layers", [1, 3])
def test_side_by_side_equals_one_by_one_and_gradients_are_autograds(kind: str, layers: int) -> None:
    module = network((2,), 3, units=5, layers=layers, kind=kind)
    params, x, y = tasks(module)
    alone = [functional_call(module, {name: p[task] for name, p in params.items()}, (x[task],)) for task in range(3)]
    torch.testing.assert_close(module.forward_stacked(params, x), torch.stack(alone), rtol=0, atol=1e-12)

    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    expected = task_losses(module.forward_stacked(leaves, x), y)
    by_autograd = torch.autograd.grad(expected.sum(), list(leaves.values()))
    losses, gradient = module.loss_and_gradient(params, x, y)
    torch.testing.assert_close(losses, expected.detach(), rtol=0, atol=1e-12)
    assert list(gradient) == list(params)
    for g, its in zip(gradient.values(), by_autograd, strict=True):
        torch.testing.assert_close(g, its, rtol=0, atol=1e-12)


def test_the_gradient_can_itself_be_differentiated() -> None:
    """Hessian-vector products, against autograd's through its own first derivative."""
    module = network((2,), 1, units=5)
    params, x, y = tasks(module)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}

    def products(gradient: list[Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum(g.square().sum() for g in gradient), list(leaves.values()))

    loss = task_losses(module.forward_stacked(leaves, x), y).sum()
    expected = products(list(torch.autograd.grad(loss, list(leaves.values()), create_graph=True)))
    found = products(list(module.loss_and_gradient(leaves, x, y)[1].values()))
    for mine, its in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=1e-12)


def test_executions() -> None:
    """All give the same; those of convolutions are refused by name."""
    module = network((2,), 1, units=5)
    params, x, _ = tasks(module)
    params, x = {name: p.float() for name, p in params.items()}, x.float()
    expected = choose_execution("loop", module, (2,), CPU).forward(params, x)
    for name in ("auto", "matmul", "vmap"):
        execution = choose_execution(name, module, (2,), CPU)
        torch.testing.assert_close(execution.forward(params, x), expected)
    assert choose_execution("auto", module, (2,), CPU).name == "matmul"
    with pytest.raises(ConfigError, match="execution native is for images; functions run with matmul, loop"):
        choose_execution("native", module, (2,), CPU)
