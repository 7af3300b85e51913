"""What trying a network shows: whether it draws, changes its input, needs contiguous maps, depends on its batch."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.easy import load_script
from torchreptile.core.errors import ConfigError
from torchreptile.core.random_state import RandomState, seeded
from torchreptile.models.behaviour import Behaviour, behaviour_of
from torchreptile.models.blueprint import build_network
from torchreptile.models.custom import check_network
from torchreptile.models.module_call import ModuleCall, params_of, predicting

KINDS = load_script("tools", "network_kinds").KINDS
SHAPE, OUTPUTS = (3, 12, 12), 3


def found(kind: str) -> Behaviour:
    return behaviour_of(build_network(KINDS[kind], SHAPE, OUTPUTS), SHAPE)


class NumpyDropPath(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(432, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.flatten(1))
        return out * (np.random.rand() < 0.5) if self.training else out


@pytest.mark.parametrize(
    ("kind", "outside"),
    [
        ("`nn.Dropout`, Dropout2d", False),
        ("`F.dropout`", False),
        ("DropPath", False),
        ("LSTM, two ways, dropout", False),
        ("MultiheadAttention, dropout", False),
        ("LayerDrop by Python's `random`", True),
    ],
)
def test_whatever_draws_is_found(kind: str, outside: bool) -> None:
    behaviour = found(kind)
    assert behaviour.draws
    assert behaviour.draws_outside == outside
    assert not behaviour.draws_predicting


def test_draws_from_numpy_and_in_predictions_are_found() -> None:
    behaviour = behaviour_of(NumpyDropPath(), SHAPE)
    assert behaviour.draws
    assert behaviour.draws_outside
    assert found("noise in predictions too").draws_predicting
    assert not any((found(kind).draws or found(kind).draws_predicting) for kind in ("linear", "LSTM", "BatchNorm"))


@pytest.mark.parametrize(
    ("kind", "independent"),
    [
        ("linear", True),
        ("GroupNorm", True),
        ("InstanceNorm, running averages", True),
        ("`F.dropout`", True),
        ("ViT, timm's style", True),
        ("BatchNorm", False),
        ("ResNet, timm's style", False),
        ("own normalisation by the batch", False),
        ("buffer changed in `forward`", False),
        ("control flow by values", False),
    ],
)
def test_whether_the_others_of_a_batch_matter(kind: str, independent: bool) -> None:
    assert found(kind).independent_outputs == independent


def test_a_head_that_begins_at_zero_hides_nothing() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    head = nn.Linear(400, OUTPUTS)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    assert not behaviour_of(nn.Sequential(body, head), SHAPE).independent_outputs


def test_view_needs_contiguous_maps_and_writing_into_the_input_is_seen() -> None:
    assert not found("convolution, `view`").channels_last
    assert found("BatchNorm").channels_last
    assert found("in-place operations").changes_input
    assert not found("BatchNorm").changes_input


class SeriesAsImages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 64, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.view(len(x), 3, 8, 8))
        out: Tensor = self.head(x.view(len(x), -1))
        return out


def test_kernels_decide_too_where_the_input_is_a_series() -> None:
    assert not behaviour_of(SeriesAsImages(), (3, 64)).channels_last
    check_network(lambda shape, outputs: SeriesAsImages(), (3, 64), OUTPUTS)
    with pytest.raises(
        ConfigError, match=r"series \(2, 3, 64\) give \(2, 3\); they must give \(2, 4\), 4 numbers per series"
    ):
        check_network(lambda shape, outputs: SeriesAsImages(), (3, 64), 4)


@pytest.mark.parametrize("kind", ["buffer changed in `forward`", "LayerDrop by Python's `random`", "frozen body"])
def test_a_trial_leaves_no_trace(kind: str) -> None:
    module = build_network(KINDS[kind], SHAPE, OUTPUTS)
    before, state = copy.deepcopy(module.state_dict()), RandomState.now(torch.device("cpu"))
    behaviour_of(module, SHAPE)
    check_network(lambda shape, outputs: module, SHAPE, OUTPUTS)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert state.moved_since(torch.device("cpu")) == (False, False)
    assert module.training


def test_every_call_starts_from_the_same_buffers_and_changes_nothing() -> None:
    module = build_network(KINDS["buffer changed in `forward`"], SHAPE, OUTPUTS)
    call, params = ModuleCall(module), params_of(module)
    x, other = torch.rand(2, *SHAPE), torch.rand(2, *SHAPE)
    first = call(params, x)
    call(params, other)
    assert torch.equal(first, call(params, x))
    assert not module.get_buffer("mean").any()


def test_frozen_parameters_get_no_gradient_and_complex_ones_are_pairs() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filter = nn.Parameter(torch.tensor([1 + 2j, 3 - 1j]))
            self.fixed = nn.Parameter(torch.ones(2), requires_grad=False)

        def forward(self, x: Tensor) -> Tensor:
            return (self.filter * self.fixed * x).abs()

    module = Both()
    params = {name: p.requires_grad_() for name, p in params_of(module).items()}
    assert params["filter"].tolist() == [[1, 2], [3, -1]]
    out = ModuleCall(module)(params, torch.ones(2))
    torch.testing.assert_close(out, torch.tensor([5.0, 10.0]).sqrt())
    gradient = torch.autograd.grad(out.sum(), list(params.values()), materialize_grads=True)
    torch.testing.assert_close(gradient[0], torch.tensor([[1.0, 2.0], [3.0, -1.0]]) / out.detach()[:, None])
    assert not gradient[1].any()


def test_noise_in_predictions_is_the_same_every_time() -> None:
    module = build_network(KINDS["noise in predictions too"], SHAPE, OUTPUTS)
    call, params, x = ModuleCall(module), params_of(module), torch.rand(2, *SHAPE)
    with predicting(module, draws=True):
        first = call(params, x)
    with predicting(module, draws=True):
        second = call(params, x)
    assert torch.equal(first, second)
    assert not torch.equal(first, F.relu(call(params, x)))


def test_all_global_generators_are_seeded_and_put_back() -> None:
    def draw() -> tuple[float, float, float]:
        return float(torch.rand(())), random.random(), float(np.random.rand())

    state = RandomState.now(torch.device("cpu"))
    draws: list[Callable[[], object]] = [lambda: torch.rand(1), random.random, np.random.rand]
    with seeded(7):
        first = draw()
    with seeded(7):
        assert draw() == first
    assert state.moved_since(torch.device("cpu")) == (False, False)
    for one, moved in zip(draws, [(True, False), (False, True), (False, True)], strict=True):
        with state.restored():
            one()
            assert state.moved_since(torch.device("cpu")) == moved
