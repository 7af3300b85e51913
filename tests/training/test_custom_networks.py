"""Networks of one's own: trained, resumed, evaluated; every execution the same; nothing leaks between tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.easy import TINY, easy_store, small_config
from tests.runs import assert_same_run, stop_at
from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.data.splits import Splits
from torchreptile.experiments.reports import report
from torchreptile.models.blueprint import Network, build_network, initial_params
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.train import resume, train

CPU = torch.device("cpu")


class SmallResNet(nn.Module):
    """Two residual blocks with ordinary BatchNorm, running averages and all."""

    def __init__(self, image_shape: tuple[int, int, int], way: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], 8, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.head = nn.Linear(8, way)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + F.relu(norm(conv(x)))
        out: torch.Tensor = self.head(x.mean((2, 3)))
        return out


class SmallTransformer(nn.Module):
    """The image's rows as tokens of a transformer encoder."""

    def __init__(self, image_shape: tuple[int, int, int], way: int, dropout: float = 0.0) -> None:
        super().__init__()
        channels, _, width = image_shape
        self.embed = nn.Linear(channels * width, 16)
        layer = nn.TransformerEncoderLayer(16, nhead=2, dim_feedforward=32, dropout=dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, way)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x.transpose(1, 2).flatten(2))
        out: torch.Tensor = self.head(self.encoder(tokens).mean(1))
        return out


def with_dropout(image_shape: tuple[int, int, int], way: int) -> nn.Module:
    return SmallTransformer(image_shape, way, dropout=0.3)


def own_config(**changes: object) -> Config:
    return small_config(execution="auto", **changes)


@pytest.mark.parametrize("network", [SmallResNet, SmallTransformer])
def test_vmap_gives_what_the_loop_gives(network: Network) -> None:
    """SGD in float64 to 1e-10, and the same labels."""
    results = []
    for execution in ("loop", "vmap"):
        config = small_config(inner_optimizer="sgd", inner_lr=0.1, execution=execution)
        algorithm = build_algorithm(config, TINY, CPU, network=network)
        assert algorithm.execution.name == execution
        params = {name: p.double() for name, p in initial_params(network, TINY, 3, seed=0).items()}
        state, generator = algorithm.initial_state(params), torch.Generator().manual_seed(3)
        sampler = algorithm.sampler(easy_store(30, shape=TINY))
        sampler.dtype = torch.float64
        results.append(algorithm.meta_gradient(state, sampler.sample(4, generator), generator))
    for name, g in results[0].gradient.items():
        torch.testing.assert_close(results[1].gradient[name], g, rtol=0, atol=1e-10)
    assert float(results[0].gradient["head.weight"].abs().max()) > 1e-4


@pytest.mark.parametrize("network", [SmallResNet, SmallTransformer, with_dropout])
def test_trained_stopped_resumed_and_evaluated(tmp_path: Path, easy_data: Splits, network: Network) -> None:
    config = own_config()
    whole = train(config, tmp_path / "whole", network=network)
    train(config, tmp_path / "parts", stop_at(3), network=network)
    resume(tmp_path / "parts", network=network)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert "embed.weight" in whole.state.params or "stem.weight" in whole.state.params
    first, second = (evaluate(tmp_path / "whole", episodes=20, network=network).result for _ in "12")
    assert first == second
    with pytest.raises(RunError, match="its weights are not those of this network"):
        resume(tmp_path / "whole")
    with pytest.raises(ConfigError, match="name a custom network with --model"):
        evaluate(tmp_path / "whole", episodes=20)
    with pytest.raises(ConfigError, match="name a custom network with --model"):
        report(tmp_path / "whole")
    assert "report.html" in [file.name for file in report(tmp_path / "whole", network)]


def test_batch_norm_goes_by_the_batch_and_nothing_is_left_behind() -> None:
    module = build_network(SmallResNet, TINY, 3)
    assert not list(module.buffers())
    images = torch.rand(5, *TINY)
    assert torch.equal(module.train()(images), module.eval()(images))


def test_dropout_is_drawn_from_the_trainings_generator_and_off_when_labelling() -> None:
    config = own_config()
    algorithm = build_algorithm(config, TINY, CPU, network=with_dropout)
    assert algorithm.execution.draws
    state = algorithm.initial_state(initial_params(with_dropout, TINY, 3, seed=0))
    episodes = algorithm.sampler(easy_store(30, shape=TINY)).sample(3, torch.Generator().manual_seed(0))
    global_state = torch.random.get_rng_state()
    gradients = [
        algorithm.meta_gradient(state, episodes, torch.Generator().manual_seed(seed)).gradient["head.weight"]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.equal(gradients[0], gradients[2])
    assert torch.equal(torch.random.get_rng_state(), global_state)


def test_same_seed_same_weights_whatever_was_drawn_before() -> None:
    first = initial_params(SmallResNet, TINY, 3, seed=4)
    torch.rand(10)
    second, other = initial_params(SmallResNet, TINY, 3, seed=4), initial_params(SmallResNet, TINY, 3, seed=5)
    assert all(torch.equal(p, second[name]) for name, p in first.items())
    assert not torch.equal(first["head.weight"], other["head.weight"])
