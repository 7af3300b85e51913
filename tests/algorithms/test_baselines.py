"""The baselines without meta-learning: the task's classifier against torch.optim, what training does, and what not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests import metric_reference as plain
from tests.easy import TINY, easy_store, small_config
from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.pretrained import classified, first_heads, trained
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.training.outer_step import updated

EXACT = {"rtol": 0, "atol": 1e-10}
CLASSES = 12
every_head = pytest.mark.parametrize("head", ["linear", "cosine"])


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pretrained(head: str, **changes: object) -> tuple[Algorithm, MetaState]:
    settings = {"algorithm": "pretrained", "train_way": 6, "train_shots": 2, "pretrained_head": head, "inner_lr": 0.05}
    algorithm = build_algorithm(small_config(**(settings | changes)), TINY, torch.device("cpu"), classes=CLASSES)
    return algorithm, algorithm.begin(0).mapped(torch.Tensor.double)


class Head(nn.Module):
    """One task's classifier, written with modules."""

    def __init__(self, start: dict[str, Tensor]) -> None:
        super().__init__()
        self.own = nn.ParameterDict({name: nn.Parameter(p.clone()) for name, p in start.items()})

    def forward(self, x: Tensor) -> Tensor:
        if "weight" in self.own:
            return F.linear(x, self.own["weight"], self.own["bias"])
        direction, length = self.own["direction"], self.own["length"]
        cosines = torch.stack([F.cosine_similarity(x, row[None], dim=1) for row in direction], dim=1)
        return 2.0 * cosines * length


@every_head
def test_a_tasks_classifier_is_trained_as_torch_trains_it(head: str) -> None:
    """Three tasks, 20 mini-batches of 4, against torch.optim.SGD with Chen et al.'s constants, one task at a time."""
    support = torch.rand(3, 7, 5, generator=seeded(0), dtype=torch.float64)
    y = torch.tensor([0, 0, 1, 1, 2, 2, 2]).expand(3, -1)
    query = torch.rand(3, 4, 5, generator=seeded(1), dtype=torch.float64)
    drawn = torch.rand(3, 20, 7, generator=seeded(2)).argsort(2)[:, :, :4]
    start = first_heads(support, F.one_hot(y, 3).double(), head)
    got = classified(trained(start, support, y, drawn, lr=0.05), query)
    for task in range(3):
        net = Head({name: p[task] for name, p in start.items()})
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, dampening=0.9, weight_decay=0.001)
        for batch in drawn[task]:
            optimizer.zero_grad()
            F.cross_entropy(net(support[task, batch]), y[task, batch]).backward()
            optimizer.step()
        torch.testing.assert_close(got[task], net(query[task]).detach(), **EXACT)
    assert float(got.std()) > 1e-3


@every_head
def test_training_is_classification_over_all_classes(head: str) -> None:
    """The loss of a mini-batch against the reference: labels are the store's classes, whatever a task calls them."""
    algorithm, state = pretrained(head)
    sampler = algorithm.sampler(easy_store(CLASSES, 20, 3, TINY))
    sampler.dtype = torch.float64
    drawn = sampler.sample(2, seeded(0))
    gradients = algorithm.meta_gradient(state, drawn, seeded(0))
    losses = []
    for task in range(2):
        embedded = plain.embedding(state.params, drawn.support_x[task])
        labels = torch.tensor([int(drawn.classes[task, label]) for label in drawn.support_y[task]])
        if head == "linear":
            logits = F.linear(embedded, state.params["classifier.weight"], state.params["classifier.bias"])
        else:
            directions = state.params["classifier.direction"]
            cosines = torch.stack([F.cosine_similarity(embedded, row[None], dim=1) for row in directions], dim=1)
            logits = 2.0 * cosines * state.params["classifier.length"]
        losses.append(float(F.cross_entropy(logits, labels)))
    assert float(gradients.loss) == pytest.approx(sum(losses) / 2, abs=1e-10)
    assert all(float(g.abs().max()) > 0 for name, g in gradients.gradient.items() if name.startswith("classifier."))


def test_the_number_of_training_classes_has_no_part_in_a_task() -> None:
    """Weights of a training with 12 classes serve an algorithm that knows of none; another embedding does not."""
    _, state = pretrained("linear")
    config = small_config(algorithm="pretrained", train_way=6, train_shots=2)
    blind = build_algorithm(config, TINY, torch.device("cpu"))
    assert state.params["classifier.weight"].shape == (CLASSES, 64)
    assert blind.fits(state.params)
    assert not blind.fits({name: p for name, p in state.params.items() if name != "convs.3.weight"})


def test_scratch_learns_nothing_before_the_task() -> None:
    config = small_config(algorithm="scratch")
    algorithm = build_algorithm(config, TINY, torch.device("cpu"))
    state = algorithm.begin(0)
    drawn = algorithm.sampler(easy_store(CLASSES, 20, 3, TINY)).sample(2, seeded(0))
    after = updated(config.outer, state, algorithm.meta_gradient(state, drawn, seeded(0)), 1.0)
    assert all(torch.equal(p, after.params[name]) for name, p in state.params.items())
    assert not torch.equal(state.params["head.weight"], algorithm.begin(1).params["head.weight"])


def test_scratch_adapts_like_reptile_with_a_fresh_optimiser() -> None:
    tests = EpisodeSampler(easy_store(CLASSES, 20, 3, TINY), 3, 2, 2).sample(5, seeded(0))
    both = []
    for name in ("scratch", "reptile"):
        config = small_config(algorithm=name, inner_state="reset")
        algorithm = build_algorithm(config, TINY, torch.device("cpu"))
        both.append(algorithm.predict(algorithm.begin(0), tests, seeded(1)))
    assert torch.equal(both[0].transductive, both[1].transductive)
    assert torch.equal(both[0].inductive, both[1].inductive)
    assert not torch.equal(both[0].transductive, replace(tests).query_y)
