"""Custom networks: trained, resumed, evaluated; every execution the same; nothing leaks between tasks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.easy import TINY, easy_store, load_script, small_config
from tests.runs import assert_same_run, stop_at
from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.data.splits import Splits
from torchreptile.experiments.reports import report
from torchreptile.models.blueprint import Network, build_network, initial_params
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.outer_step import updated
from torchreptile.training.train import resume, train

CPU = torch.device("cpu")
KINDS = load_script("tools", "network_kinds").KINDS
DRAWING = (
    "`F.dropout`",
    "LSTM, two ways, dropout",
    "DropPath",
    "LayerDrop by Python's `random`",
    "noise in predictions too",
)


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
    uninterrupted = train(config, tmp_path / "uninterrupted", network=network)
    train(config, tmp_path / "parts", stop_at(3), network=network)
    resume(tmp_path / "parts", network=network)
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "parts")
    assert "embed.weight" in uninterrupted.state.params or "stem.weight" in uninterrupted.state.params
    first, second = (evaluate(tmp_path / "uninterrupted", episodes=20, network=network).result for _ in "12")
    assert first == second
    with pytest.raises(RunError, match="its weights are not those of this network"):
        resume(tmp_path / "uninterrupted")
    with pytest.raises(ConfigError, match="name a custom network with --model"):
        evaluate(tmp_path / "uninterrupted", episodes=20)
    with pytest.raises(ConfigError, match="name a custom network with --model"):
        report(tmp_path / "uninterrupted")
    assert "report.html" in [file.name for file in report(tmp_path / "uninterrupted", network)]


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


@pytest.mark.parametrize("kind", DRAWING)
def test_whatever_draws_follows_the_seed_and_resumes_exactly(tmp_path: Path, easy_data: Splits, kind: str) -> None:
    config = own_config(outer_steps=4, monitor_every=4, monitor_episodes=2, eval_steps=2)
    uninterrupted = train(config, tmp_path / "uninterrupted", network=KINDS[kind])
    torch.rand(3)
    train(config, tmp_path / "parts", stop_at(3), network=KINDS[kind])
    resume(tmp_path / "parts", network=KINDS[kind])
    assert_same_run(tmp_path / "uninterrupted", tmp_path / "parts")
    other = train(config.replace(seed=config.run.seed + 1), tmp_path / "other", network=KINDS[kind])
    assert not torch.equal(uninterrupted.state.params["head.weight"], other.state.params["head.weight"])


@pytest.mark.parametrize("execution", ["loop", "vmap"])
@pytest.mark.parametrize("kind", ["`F.dropout`", "DropPath"])
def test_segments_computed_again_draw_the_same_numbers(kind: str, execution: str) -> None:
    gradients = []
    for unrolled in (1, 2, 5):
        config = small_config(algorithm="maml", execution=execution, inner_steps=5, unrolled_steps=unrolled)
        algorithm = build_algorithm(config, TINY, CPU, network=KINDS[kind])
        assert algorithm.execution.draws
        episodes = algorithm.sampler(easy_store(30, shape=TINY)).sample(2, torch.Generator().manual_seed(0))
        gradients.append(
            algorithm.meta_gradient(algorithm.begin(0), episodes, torch.Generator().manual_seed(1)).gradient
        )
    for found in gradients[1:]:
        for name, g in gradients[0].items():
            torch.testing.assert_close(found[name], g, rtol=1e-4, atol=1e-6)
    assert gradients[0]["head.weight"].abs().max() > 0


def test_what_forward_writes_into_a_buffer_is_seen_by_no_other_call(tmp_path: Path, easy_data: Splits) -> None:
    seen: list[float] = []

    class Counts(nn.Module):
        def __init__(self, image_shape: tuple[int, int, int], way: int) -> None:
            super().__init__()
            self.head = nn.Linear(image_shape[-1], way)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(float(self.calls))
            self.calls += 1
            out: torch.Tensor = self.head(x.mean((1, 2))) * (1 + self.calls)
            return out

    runs = [
        train(small_config(monitor_every=every, execution="loop"), tmp_path / str(every), network=Counts)
        for every in (2, 6)
    ]
    assert set(seen) == {0.0}
    assert all(torch.equal(p, runs[1].state.params[name]) for name, p in runs[0].state.params.items())


@pytest.mark.parametrize(
    "algorithm", ["reptile", "foml", "maml", "fomaml", "meta-sgd", "anil", "meta-lstm", "protonet"]
)
def test_frozen_parameters_stay_in_inner_and_outer_steps(algorithm: str) -> None:
    miniature = {"meta_lstm_units": 4} if algorithm == "meta-lstm" else {}
    config = small_config(algorithm=algorithm, execution="auto", **miniature)
    built = build_algorithm(config, TINY, CPU, network=KINDS["frozen body"])
    state, generator = built.begin(0), torch.Generator().manual_seed(0)
    sampler = built.sampler(easy_store(30, shape=TINY))
    frozen = state.params["conv.weight"].clone()
    for _ in range(2):
        state = updated(config.outer, state, built.meta_gradient(state, sampler.sample(2, generator), generator), 0.1)
    assert torch.equal(state.params["conv.weight"], frozen)
    assert not torch.equal(state.params["head.weight"], built.begin(0).params["head.weight"])
    episodes = sampler.sample(1, generator)
    drawn = built.draw(1, episodes.support_y.shape[1], generator)
    adapted, _ = built.settled(state, built.adapt(state, episodes.support_x, episodes.support_y, drawn))
    assert torch.equal(adapted.params["conv.weight"], frozen)


class BackwardFails(nn.Module):
    """Forward works on any batch; the backward pass does not."""

    def __init__(self, image_shape: tuple[int, int, int], way: int) -> None:
        super().__init__()
        self.head = nn.Linear(image_shape[-1], way)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x.mean((1, 2)))
        if torch.is_grad_enabled():
            out.register_hook(lambda g: g.view(-1, 1000))
        return out


class LargeBatchFails(BackwardFails):
    """It was written for at most four images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(x.mean((1, 2)))
        return out + torch.zeros(4)[: len(x), None]


@pytest.mark.parametrize("network", [BackwardFails, LargeBatchFails])
def test_what_training_runs_is_tried_before_a_folder_is_made(
    tmp_path: Path, easy_data: Splits, network: Network
) -> None:
    with pytest.raises(ConfigError, match=rf"^network {network.__name__} fails (in training|on random images) \("):
        train(own_config(), tmp_path / "run", network=network)
    assert not (tmp_path / "run").exists()


def test_a_query_is_labelled_alone_where_its_batch_does_not_matter() -> None:
    sizes: list[int] = []

    def watched(kind: str) -> Network:
        def network(image_shape: tuple[int, int, int], way: int) -> nn.Module:
            module = KINDS[kind](image_shape, way)
            module.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
            return module

        return network

    for kind, batch in (("GroupNorm", [2]), ("BatchNorm", [7, 7])):
        algorithm = build_algorithm(small_config(execution="loop"), (1, 12, 12), CPU, network=watched(kind))
        state, images = algorithm.begin(0), torch.rand(1, 6, 1, 12, 12)
        labels = torch.arange(3).repeat_interleave(2)[None]
        adapted = algorithm.adapt(state, images, labels, algorithm.draw(1, 6, torch.Generator().manual_seed(0)))
        sizes.clear()
        found = adapted.inductive(images[:, :2])
        assert sizes == batch
        # What it gave in a batch with the support set.
        alone = [torch.cat([images, image[None, None]], 1) for image in images[0, :2]]
        expected = torch.stack([adapted.transductive(one)[0, -1] for one in alone])
        torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)


def test_prototypical_networks_label_without_dropout_and_the_support_set_once() -> None:
    config = small_config(algorithm="protonet", execution="auto")
    algorithm = build_algorithm(config, TINY, CPU, network=KINDS["`F.dropout`"])
    state, images = algorithm.begin(0), torch.rand(1, 6, *TINY)
    labels = torch.arange(3).repeat_interleave(2)[None]
    adapted = algorithm.adapt(state, images, labels, algorithm.draw(1, 6, torch.Generator().manual_seed(0)))
    first, second = adapted.inductive(images[:, :4]), adapted.inductive(images[:, :4])
    assert torch.equal(first, second)
    torch.testing.assert_close(adapted.inductive(images[:, :1]), first[:, :1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(adapted.transductive(images[:, :4]), first, rtol=1e-5, atol=1e-6)
