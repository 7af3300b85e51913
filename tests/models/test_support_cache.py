"""The support set's outputs that are stored: the same answers as without, and never where a query may change them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.easy import small_config
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.gradient_based import CACHE_FROM
from torchreptile.models.support_cache import SupportCache

SUPPORT, QUERIES = 6, 4


def norm(width: int) -> nn.Module:
    return nn.BatchNorm1d(width, track_running_stats=False)


class Branch(nn.Module):
    """Decides by its batch, in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out * 2 if float(x.amax()) > 1e3 else out


class Largest(nn.Module):
    """Divides by the largest number of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x / x.amax()


def hooked() -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.register_forward_hook(lambda module, inputs, output: output + 1)
    return layer


@pytest.mark.parametrize(
    ("layers", "stored"),
    [
        ([nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), norm(8), nn.Linear(8, 3)], ["0", "2"]),
        ([nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8)), norm(8), nn.Linear(8, 3)], ["0"]),
        ([norm(8), nn.Linear(8, 3)], []),
        ([Branch(), norm(8), nn.Linear(8, 3)], []),
        ([Largest(), norm(8), nn.Linear(8, 3)], []),
        ([hooked(), norm(8), nn.Linear(8, 3)], []),
    ],
)
@torch.no_grad()
def test_layers_before_the_first_that_mixes_the_batch_are_stored(layers: list[nn.Module], stored: list[str]) -> None:
    network = nn.Sequential(*layers)
    support, queries = torch.rand(SUPPORT, 8), torch.rand(QUERIES, 8)
    cache = SupportCache(network, network, support, queries[0])
    assert cache.layers == stored
    for query in queries:
        batch = torch.cat([support, query[None]])
        expected = network(batch)
        with cache.in_use():
            torch.testing.assert_close(network(batch), expected, rtol=1e-5, atol=1e-6)
    assert not any("forward" in part.__dict__ for part in network.modules())


def test_a_learner_answers_the_same_before_and_with_the_cache() -> None:
    images: list[int] = []

    def network(image_shape: tuple[int, int, int], way: int) -> nn.Module:
        body = nn.Sequential(nn.Conv2d(image_shape[0], 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 25, 8))
        body[0].register_forward_hook(lambda module, inputs, output: images.append(len(output)))
        return nn.Sequential(body, nn.BatchNorm1d(8), nn.Linear(8, way))

    shape = (1, 7, 7)
    algorithm = build_algorithm(small_config(execution="loop"), shape, torch.device("cpu"), network=network)
    state, support = algorithm.begin(0), torch.rand(1, SUPPORT, *shape)
    labels = torch.arange(3).repeat_interleave(2)[None]
    adapted = algorithm.adapt(state, support, labels, algorithm.draw(1, SUPPORT, torch.Generator().manual_seed(0)))
    queries = torch.rand(1, CACHE_FROM + 3, *shape)
    first = adapted.inductive(queries[:, :3])
    adapted.inductive(queries[:, 3:])
    images.clear()
    again = adapted.inductive(queries[:, :3])
    assert images == [1, 1, 1]
    torch.testing.assert_close(again, first, rtol=1e-5, atol=1e-6)
