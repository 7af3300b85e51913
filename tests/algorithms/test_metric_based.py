"""Matching and Prototypical Networks in float64 against plain references, and what they may not depend on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests import metric_reference as plain
from tests.easy import TINY, easy_store, small_config
from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.metric_based import MetricBased
from torchreptile.algorithms.prototypical_networks import squared_distances
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.data.splits import Splits
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.outer_step import updated
from torchreptile.training.train import resume, train
from torchreptile.training.weights import load_weights, save_weights

EXACT = {"rtol": 0, "atol": 1e-10}
KINDS = {
    "matching": {"algorithm": "matching", "attention_scale": 1.0},
    "matching scaled": {"algorithm": "matching", "attention_scale": 10.0},
    "matching FCE": {"algorithm": "matching", "attention_scale": 1.0, "fce_reads": 3},
    "protonet": {"algorithm": "protonet"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(kind: str, **changes: object) -> tuple[MetricBased, MetaState]:
    """In float64, with BatchNorm's parameters moved off their start, and averages off those of some images."""
    config = small_config(
        **({"train_shots": 2, "train_queries": 2, "inner_optimizer": "sgd", "inner_lr": 0.1} | KINDS[kind] | changes)
    )
    algorithm = build_algorithm(config, TINY, torch.device("cpu"))
    assert isinstance(algorithm, MetricBased)
    generator = torch.Generator().manual_seed(5)

    def shaken(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        noise = {name: torch.rand(t.shape, generator=generator, dtype=torch.float64) for name, t in tensors.items()}
        return {name: t + 0.3 * noise[name] if t.ndim == 1 else t for name, t in tensors.items()}

    state = algorithm.begin(0).mapped(torch.Tensor.double)
    state = replace(state, params=shaken(state.params))
    measured = algorithm.embedder.by_batch(state.params, episodes(1, shots=10, seed=9).support_x)[1]
    return algorithm, replace(state, averages=shaken(measured))


def episodes(tasks: int, shots: int = 2, queries: int = 2, seed: int = 0) -> Episodes:
    sampler = EpisodeSampler(easy_store(12, 20, 3, TINY, noise=1.0), 3, shots, queries, torch.float64)
    return sampler.sample(tasks, torch.Generator().manual_seed(seed))


def adapted(algorithm: Algorithm, state: MetaState, e: Episodes, way: str) -> Tensor:
    """Probabilities (T, Q, way); ``way`` is transductive or inductive."""
    drawn = algorithm.draw(len(e), e.support_y.shape[1], torch.Generator())
    learner = algorithm.adapt(state, e.support_x, e.support_y, drawn)
    return getattr(learner, way)(e.query_x).softmax(2)


def expected(kind: str, state: MetaState, e: Episodes, task: int, averages: dict[str, Tensor] | None) -> Tensor:
    """The reference's probabilities for one task."""
    embedded = plain.embedding(state.params, torch.cat([e.support_x[task], e.query_x[task]]), averages)
    support, query = embedded[: e.support_y.shape[1]], embedded[e.support_y.shape[1] :]
    labels = e.support_y[task].tolist()
    if kind == "protonet":
        return plain.prototype_probabilities(support, labels, query, 3)
    if kind == "matching FCE":
        own = {name.removeprefix("fce."): p for name, p in state.params.items()}
        support, query = plain.full_context(own, support, query, reads=3)
    return plain.attention_probabilities(support, labels, query, 3, 10.0 if kind == "matching scaled" else 1.0)


@every_kind
def test_probabilities_are_the_references(kind: str) -> None:
    algorithm, state = build(kind)
    e = episodes(3)
    transductive, inductive = (adapted(algorithm, state, e, way) for way in ("transductive", "inductive"))
    for task in range(3):
        torch.testing.assert_close(transductive[task], expected(kind, state, e, task, None), **EXACT)
        torch.testing.assert_close(inductive[task], expected(kind, state, e, task, state.averages), **EXACT)
    assert float((transductive - inductive).abs().max()) > 1e-4


@every_kind
def test_classes_may_have_different_numbers_of_images(kind: str) -> None:
    """One, two and three of them, in no order."""
    algorithm, state = build(kind)
    e = replace(episodes(2), support_y=torch.tensor([[2, 0, 1, 2, 2, 1], [0, 1, 0, 0, 1, 2]]))
    for task in range(2):
        got = adapted(algorithm, state, e, "inductive")[task]
        torch.testing.assert_close(got, expected(kind, state, e, task, state.averages), **EXACT)


@every_kind
def test_a_query_alone_does_not_see_the_others(kind: str) -> None:
    """To the last bit but what the size of a matrix product changes; together it does see them."""
    algorithm, state = build(kind)
    e = episodes(2)
    queries = e.query_x.clone()
    queries[:, 1:] = torch.rand(queries[:, 1:].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for way, same in (("inductive", True), ("transductive", False)):
        one, other = (adapted(algorithm, state, x, way)[:, 0] for x in (e, replace(e, query_x=queries)))
        assert torch.allclose(one, other, rtol=0, atol=1e-12) is same
    single = adapted(algorithm, state, replace(e, query_x=e.query_x[:, :1]), "inductive")
    torch.testing.assert_close(single, adapted(algorithm, state, e, "inductive")[:, :1], **EXACT)


@every_kind
def test_the_order_of_the_support_set_matters_to_full_context_alone(kind: str) -> None:
    algorithm, state = build(kind)
    e = episodes(2)
    order = torch.tensor([4, 1, 0, 5, 3, 2])
    turned = replace(e, support_x=e.support_x[:, order], support_y=e.support_y[:, order])
    for way in ("transductive", "inductive"):
        one, other = (adapted(algorithm, state, x, way) for x in (e, turned))
        assert torch.allclose(one, other, rtol=0, atol=1e-10) is (kind != "matching FCE")


@every_kind
def test_gradient_and_statistics_are_those_of_autograd_task_by_task(kind: str) -> None:
    """Four tasks at once against the mean of four references differentiated one at a time."""
    algorithm, state = build(kind)
    e = episodes(4)
    computed = algorithm.meta_gradient(state, e, torch.Generator())
    names = list(state.params)
    total = {name: torch.zeros_like(p) for name, p in state.params.items()}
    loss = 0.0
    for task in range(4):
        leaves = {name: p.clone().requires_grad_() for name, p in state.params.items()}
        x = torch.cat([e.support_x[task], e.query_x[task]])[None]
        # The reference of probabilities computes with floats; through the plain embedding autograd must come by itself.
        embedded = plain.embedding(leaves, x[0])[None]
        y = e.support_y[task : task + 1]
        logits = algorithm.label_by(leaves, embedded[:, :6], y, 3, embedded[:, 6:], torch.empty(1, 0))
        its = torch.nn.functional.cross_entropy(logits[0], e.query_y[task])
        for name, g in zip(names, torch.autograd.grad(its, [leaves[name] for name in names]), strict=True):
            total[name] += g / 4
        loss += float(its.detach()) / 4
    for name in names:
        torch.testing.assert_close(computed.gradient[name], total[name], **EXACT)
    assert float(computed.loss) == pytest.approx(loss, abs=1e-10)

    means, variances = [], []
    for task in range(4):
        y = torch.nn.functional.conv2d(
            torch.cat([e.support_x[task], e.query_x[task]]), state.params["convs.0.weight"], padding=1
        )
        means.append(y.mean((0, 2, 3)))
        variances.append(y.var((0, 2, 3)))
    for name, measured in (("norms.0.mean", means), ("norms.0.var", variances)):
        wanted = 0.9 * state.averages[name] + 0.1 * torch.stack(measured).mean(0)
        torch.testing.assert_close(computed.averages[name], wanted, **EXACT)


@every_kind
@pytest.mark.parametrize("chunk", [1, 3])
def test_tasks_at_once_make_no_difference(kind: str, chunk: int) -> None:
    e, results = episodes(4), []
    for limit in (4, chunk):
        algorithm, state = build(kind, task_chunk=limit)
        computed = algorithm.meta_gradient(state, e, torch.Generator())
        results.append([*computed.gradient.values(), *computed.averages.values(), computed.loss])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_compiled_blocks_give_the_same_numbers() -> None:
    e, results = episodes(2), []
    for execution in ("compiled", "loop"):
        algorithm, state = build("protonet", execution=execution)
        assert algorithm.execution.name == ("compiled" if execution == "compiled" else "shared")
        computed = algorithm.meta_gradient(state, e, torch.Generator())
        results.append([*computed.gradient.values(), *computed.averages.values(), computed.loss])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@every_kind
def test_fine_tuning_is_plain_gradient_descent_on_the_support_set(kind: str) -> None:
    """Two steps by hand for one task; none at all is the same as without; phi stays as it was."""
    e = episodes(2)
    algorithm, state = build(kind, finetune_steps=2)
    before = {name: p.clone() for name, p in state.params.items()}
    got = adapted(algorithm, state, e, "inductive")
    own = {name: p for name, p in state.params.items() if not name.startswith("fce.")}
    for _ in range(2):
        own = {name: p.detach().requires_grad_() for name, p in own.items()}
        embedded = plain.embedding(own, e.support_x[0], state.averages)[None]
        logits = algorithm.label_by(state.params, embedded, e.support_y[:1], 3, embedded, torch.empty(0))
        loss = torch.nn.functional.cross_entropy(logits[0], e.support_y[0])
        for name, g in zip(own, torch.autograd.grad(loss, list(own.values())), strict=True):
            own[name] = own[name].detach() - 0.1 * g
    tuned = replace(state, params=state.params | own)
    torch.testing.assert_close(got[0], expected(kind, tuned, e, 0, state.averages), **EXACT)
    assert all(torch.equal(p, before[name]) for name, p in state.params.items())

    without, _ = build(kind, finetune_steps=0)
    none = adapted(without, state, e, "inductive")
    assert float((got - none).abs().max()) > 1e-6
    torch.testing.assert_close(none[0], expected(kind, state, e, 0, state.averages), **EXACT)


def test_distances_keep_their_digits_far_from_the_origin() -> None:
    """In float32, a thousand away from 0, against the differences themselves."""
    generator = torch.Generator().manual_seed(0)
    x, y = (1000 + torch.rand(2, n, 64, generator=generator) for n in (4, 3))
    wanted = (x.unsqueeze(2) - y.unsqueeze(1)).square().sum(3)
    torch.testing.assert_close(squared_distances(x, y), wanted, rtol=1e-4, atol=0)


class OwnNetwork(nn.Module):
    """A network with BatchNorm that keeps no averages."""

    def __init__(self, shape: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(shape[0], 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * shape[1] * shape[2], outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).flatten(1))


@pytest.mark.parametrize("steps", [0, 1])
def test_with_a_network_of_ones_own_a_query_shares_its_batch_with_the_support_set(steps: int) -> None:
    config = small_config(
        algorithm="protonet", train_queries=2, inner_optimizer="sgd", inner_lr=0.1, finetune_steps=steps
    )
    algorithm = build_algorithm(config, TINY, torch.device("cpu"), network=OwnNetwork)
    state = algorithm.begin(0).mapped(torch.Tensor.double)
    assert not state.averages
    e = episodes(2)
    alone = adapted(algorithm, state, e, "inductive")
    for query in range(6):
        its = replace(e, query_x=e.query_x[:, query : query + 1])
        torch.testing.assert_close(alone[:, query : query + 1], adapted(algorithm, state, its, "transductive"), **EXACT)
    computed = algorithm.meta_gradient(state, e, torch.Generator())
    assert not torch.equal(
        updated(config.outer, state, computed, 0.1).params["head.weight"], state.params["head.weight"]
    )


def test_trained_with_more_classes_than_tested_with() -> None:
    algorithm, state = build("protonet", train_way=7)
    sampler = algorithm.sampler(easy_store(12, 20, 3, TINY))
    sampler.dtype = torch.float64
    drawn = sampler.sample(2, torch.Generator().manual_seed(0))
    assert drawn.support_y.shape == (2, 14)
    assert algorithm.meta_gradient(state, drawn, torch.Generator()).loss.isfinite()
    assert adapted(algorithm, state, episodes(2), "inductive").shape == (2, 6, 3)


def test_a_run_is_evaluated_with_and_without_fine_tuning(tmp_path: Path, easy_data: Splits) -> None:
    """One training, both rows; the file says which, and another way is no other training."""
    config = small_config(algorithm="matching", train_queries=2, inner_optimizer="sgd", inner_lr=0.1)
    train(config, tmp_path / "run")
    plain_row, tuned = (evaluate(tmp_path / "run", episodes=8, finetune_steps=steps) for steps in (None, 3))
    assert [row.config.adaptation for row in (plain_row, tuned)] == [
        "no fine-tuning",
        "embedding fine-tuned by 3 steps",
    ]
    files = {Evaluation.from_json(f.read_text()).config.adaptation for f in (tmp_path / "run").glob("eval-*.json")}
    assert files == {"no fine-tuning", "embedding fine-tuned by 3 steps"}
    assert '"adaptation": "embedding fine-tuned by 3 steps"' in tuned.to_json()
    assert evaluate(tmp_path / "run", episodes=8, way=5).config.task.way == 5


def test_averages_are_kept_with_checkpoints_and_with_weights(tmp_path: Path, easy_data: Splits) -> None:
    config = small_config(algorithm="protonet", train_queries=2, outer_optimizer="adam", outer_step_size=1e-3)
    train(config, tmp_path / "run")
    resume(tmp_path / "run")
    computed = load_weights(tmp_path / "run")
    assert float((computed.state.averages["norms.0.mean"]).abs().max()) > 1e-3
    save_weights(computed, tmp_path / "w.safetensors", {})
    again = load_weights(tmp_path / "w.safetensors")
    assert again.state.averages.keys() == computed.state.averages.keys()
    assert all(torch.equal(t, computed.state.averages[name]) for name, t in again.state.averages.items())
