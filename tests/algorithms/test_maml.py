"""MAML and its kin against plain autograd, task by task, on the reference's network; and their memory."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.easy import TINY, double_params, easy_store, small_config
from tests.reference import MiniImageNetNet, OmniglotNet
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.maml_base import MAMLBase
from torchreptile.algorithms.meta_state import MetaGradient
from torchreptile.core.config import Config
from torchreptile.data.episodes import Episodes
from torchreptile.models.blueprint import Network, build_network
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.network import for_images

CPU, SMALL, LARGE = torch.device("cpu"), (1, 28, 28), (3, 64, 64)
LR, STEPS = 0.05, 2


class AveragedOmniglotNet(OmniglotNet):
    """The reference's network with the head of MAML's: 64 averages."""

    def __init__(self, way: int) -> None:
        super().__init__(way)
        self.head = nn.Linear(64, way)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pads = ((0, 1, 0, 1), (0, 1, 0, 1), (1, 1, 1, 1), (0, 1, 0, 1))
        for conv, norm, pad in zip(self.convs, self.norms, pads, strict=True):
            x = torch.relu(norm(conv(F.pad(x, pad))))
        return self.head(x.sum(3).sum(2) / 4)


class TinyNet(nn.Module):
    """A smooth network of 33 numbers, for finite differences."""

    def __init__(self, shape: tuple[int, int, int], way: int) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(shape[1] * shape[2], 2), nn.Linear(2, way)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x.flatten(1))))


def config_for(name: str, **changes: Any) -> Config:
    return small_config(algorithm=name, inner_batch=0, inner_steps=STEPS, train_shots=2, inner_lr=LR, **changes)


def made(
    config: Config, shape: tuple[int, int, int], tasks: int = 2, network: Network | None = None
) -> tuple[MAMLBase, Params, Episodes]:
    """The algorithm, its start in float64, and a meta-batch."""
    algorithm = build_algorithm(config, shape, CPU, network=network)
    assert isinstance(algorithm, MAMLBase)
    if network is None:
        start = algorithm.initial_state(double_params(config, shape)).params
    else:
        start = algorithm.begin(0).mapped(torch.Tensor.double).params
    sampler = algorithm.sampler(easy_store(10, 20, shape=shape))
    sampler.dtype = torch.float64
    return algorithm, start, sampler.sample(tasks, torch.Generator().manual_seed(0))


def meta_gradient(algorithm: MAMLBase, params: Params, episodes: Episodes) -> MetaGradient:
    state = algorithm.initial_state(algorithm.weights(params))
    state = type(state)(params, state.inner, state.outer)
    return algorithm.meta_gradient(state, episodes, torch.Generator().manual_seed(1))


def plain(
    net: nn.Module, params: Params, episodes: Episodes, adapts: Any = lambda name: True, detached: bool = False
) -> tuple[Params, float]:
    """Task after task, as MAML is usually written: create_graph, then backward through everything."""
    total, loss_sum = {name: torch.zeros_like(p) for name, p in params.items()}, 0.0
    for task in range(len(episodes)):
        phi = {name: p.detach().requires_grad_() for name, p in params.items()}
        fast = dict(phi)
        for _ in range(STEPS):
            logits = torch.func.functional_call(net, fast, (episodes.support_x[task],))
            loss = F.cross_entropy(logits, episodes.support_y[task])
            moving = [name for name in fast if adapts(name)]
            gradient = torch.autograd.grad(loss, [fast[name] for name in moving], create_graph=True)
            for name, g in zip(moving, gradient, strict=True):
                fast[name] = fast[name] - LR * (g.detach() if detached else g)
        loss = F.cross_entropy(torch.func.functional_call(net, fast, (episodes.query_x[task],)), episodes.query_y[task])
        loss_sum += float(loss.detach())
        for (name, p), g in zip(phi.items(), torch.autograd.grad(loss, list(phi.values())), strict=True):
            total[name] += g
            assert p.grad is None
    return {name: g / len(episodes) for name, g in total.items()}, loss_sum / len(episodes)


def assert_close(found: MetaGradient, expected: tuple[Params, float], atol: float = 1e-10) -> None:
    gradient, loss = expected
    assert float(found.loss) == pytest.approx(loss, abs=atol)
    assert float(gradient["head.weight"].abs().max()) > 1e-3
    for name, g in gradient.items():
        torch.testing.assert_close(found.gradient[name], g, rtol=0, atol=atol)


@pytest.mark.parametrize("execution", ["loop", "grouped", "matmul", "vmap"])
def test_second_order_equals_plain_autograd(execution: str) -> None:
    """Two inner steps on Omniglot's network with MAML's head, in float64."""
    algorithm, params, episodes = made(config_for("maml", execution=execution), SMALL)
    net = AveragedOmniglotNet(3).double()
    assert_close(meta_gradient(algorithm, params, episodes), plain(net, params, episodes))
    # And it is not the first order: the way back matters here.
    first, _ = plain(net, params, episodes, detached=True)
    second, _ = plain(net, params, episodes)
    assert float((first["convs.1.weight"] - second["convs.1.weight"]).abs().max()) > 1e-4


@pytest.mark.parametrize("execution", ["loop", "matmul"])
def test_second_order_equals_plain_autograd_with_pooling(execution: str) -> None:
    algorithm, params, episodes = made(config_for("maml", execution=execution), LARGE)
    assert_close(meta_gradient(algorithm, params, episodes), plain(MiniImageNetNet(3, 64).double(), params, episodes))


def test_first_order_is_second_order_with_constant_inner_gradients() -> None:
    algorithm, params, episodes = made(config_for("fomaml"), SMALL)
    expected = plain(AveragedOmniglotNet(3).double(), params, episodes, detached=True)
    assert_close(meta_gradient(algorithm, params, episodes), expected)


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_anil_equals_plain_autograd_that_moves_the_head_alone(shape: tuple[int, int, int]) -> None:
    algorithm, params, episodes = made(config_for("anil"), shape)
    net = (AveragedOmniglotNet(3) if shape == SMALL else MiniImageNetNet(3, 64)).double()
    expected = plain(net, params, episodes, adapts=lambda name: name.startswith("head."))
    assert_close(meta_gradient(algorithm, params, episodes), expected)


def test_anil_leaves_the_body_as_it_is() -> None:
    algorithm, params, episodes = made(config_for("anil"), TINY)
    state = algorithm.initial_state(params)
    drawn = algorithm.draw(len(episodes), episodes.support_y.shape[1], torch.Generator())
    adapted = algorithm.adapt(state, episodes.support_x, episodes.support_y, drawn)
    for name, p in params.items():
        moved = float((adapted.params[name] - p).abs().max())  # type: ignore[attr-defined]
        assert (moved > 1e-4) == name.startswith("head."), name


@pytest.mark.parametrize("name", ["maml", "anil"])
def test_a_network_of_ones_own(name: str) -> None:
    """Whose head nobody was told of: the layer of its last parameter."""
    algorithm, params, episodes = made(config_for(name, execution="vmap"), TINY, network=TinyNet)
    net = build_network(TinyNet, TINY, 3).double()
    expected = plain(net, params, episodes, adapts=lambda key: name == "maml" or key.startswith("head."))
    assert_close(meta_gradient(algorithm, params, episodes), expected)


def test_second_order_equals_finite_differences() -> None:
    """Of the loss after adaptation, in every coordinate."""
    algorithm, params, episodes = made(config_for("maml", execution="vmap"), TINY, network=TinyNet)
    found, step = meta_gradient(algorithm, params, episodes), 1e-5
    for name, p in params.items():
        for index in range(0, p.numel(), 7):
            losses = []
            for sign in (1, -1):
                other = p.clone()
                other.view(-1)[index] += sign * step
                losses.append(float(meta_gradient(algorithm, params | {name: other}, episodes).loss))
            expected = (losses[0] - losses[1]) / (2 * step)
            assert float(found.gradient[name].view(-1)[index]) == pytest.approx(expected, abs=1e-8)


def test_meta_sgd_with_constant_rates_is_maml_and_its_rates_gradient_is_right() -> None:
    algorithm, params, episodes = made(config_for("meta-sgd"), TINY)
    found = meta_gradient(algorithm, params, episodes)
    other, weights, _ = made(config_for("maml"), TINY)
    expected = meta_gradient(other, weights, episodes)
    assert set(found.gradient) == set(weights) | {f"inner_lr.{name}" for name in weights}
    for name, g in expected.gradient.items():
        torch.testing.assert_close(found.gradient[name], g, rtol=0, atol=1e-12)
    # All rates of a layer moved together: the sum of their gradients, by finite differences.
    for name in ("inner_lr.head.weight", "inner_lr.convs.2.weight"):
        losses = [
            float(meta_gradient(algorithm, params | {name: params[name] + move}, episodes).loss)
            for move in (1e-6, -1e-6)
        ]
        assert float(found.gradient[name].sum()) == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", ["maml", "anil", "meta-sgd"])
def test_steps_computed_again_give_the_same_numbers(name: str) -> None:
    gradients = []
    for unrolled in (5, 2, 1):
        config = small_config(
            algorithm=name, inner_batch=0, inner_steps=5, train_shots=2, inner_lr=LR, unrolled_steps=unrolled,
            execution="matmul",
        )  # fmt: skip
        algorithm, params, episodes = made(config, TINY)
        gradients.append(meta_gradient(algorithm, params, episodes).gradient)
    for key, g in gradients[0].items():
        for other in gradients[1:]:
            torch.testing.assert_close(other[key], g, rtol=0, atol=1e-12)


class Peak(TorchDispatchMode):
    """The most bytes of tensors made inside that were alive at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made_here = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made_here):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return made_here

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def peak(inner_steps: int, unrolled: int, execution: str = "matmul") -> int:
    config = config_for("maml", execution=execution, unrolled_steps=unrolled).replace(inner_steps=inner_steps)
    algorithm, params, episodes = made(config, SMALL, tasks=1)
    with Peak() as watched:
        meta_gradient(algorithm, params, episodes)
    return watched.most


def test_memory_grows_with_inner_steps_only_where_their_graphs_are_kept() -> None:
    """From 2 steps to 10: five times the graphs, or no more than the weights that each step begins with."""
    weights = sum(p.nbytes for p in double_params(config_for("maml"), SMALL).values())
    stored, again = ([peak(steps, unrolled) for steps in (2, 10)] for unrolled in (10, 1))
    assert stored[1] > 2.5 * stored[0]
    assert again[1] - again[0] <= 8 * weights * 1.1
    assert again[1] < stored[1] / 2


@pytest.mark.parametrize("execution", ["loop", "matmul"])
def test_the_estimate_of_memory_is_honest(execution: str) -> None:
    """What one task is said to take, against the most that was alive: not less, nor three times as much."""
    for steps, unrolled in ((1, 1), (6, 6), (6, 1)):
        config = config_for("maml", execution=execution, unrolled_steps=unrolled).replace(inner_steps=steps)
        algorithm, params, episodes = made(config, SMALL, tasks=1)
        algorithm.chunks.steps = unrolled
        estimate = algorithm.task_bytes(algorithm.initial_state(params), episodes)
        most = peak(steps, unrolled, execution)
        assert most <= estimate * 1.1, (steps, unrolled, estimate, most)
        assert estimate <= 3 * most, (steps, unrolled, estimate, most)


def test_fewer_steps_are_unrolled_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for("maml", execution="matmul").replace(inner_steps=6, meta_batch=4)
    algorithm, params, episodes = made(config, SMALL, tasks=1)
    state, segments = algorithm.initial_state(params), []
    for memory in (2**40, 2**28, 2**20):
        monkeypatch.setattr("torchreptile.algorithms.maml_base.total_memory", lambda device, memory=memory: memory)
        algorithm.chunks.steps = 0
        algorithm.fit_chunks(state, episodes)
        segments.append(algorithm.chunks.steps)
    assert segments[0] == 6
    assert 1 <= segments[1] < 6
    assert segments[2] == 1


def test_an_inner_batch_of_0_is_the_whole_support_set_in_its_order() -> None:
    algorithm, _, _ = made(config_for("maml"), TINY)
    drawn = algorithm.training_draw(2, 6, torch.Generator())
    assert drawn.tolist() == [[list(range(6))] * STEPS] * 2


def test_the_head_of_mamls_network_sees_averages() -> None:
    config = config_for("maml")
    assert double_params(config, SMALL)["head.weight"].shape == (3, 64)
    assert double_params(config, LARGE)["head.weight"].shape == (3, for_images(LARGE, 3).head.in_features)
