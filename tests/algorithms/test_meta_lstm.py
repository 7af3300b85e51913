"""Meta-LSTM against a plain reference: one task, one weight at a time where the optimiser is concerned, in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tests.easy import TINY, easy_store, shaken, small_config
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_lstm import MetaLSTM
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.data.episodes import Episodes
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.models.lstm_optimizer import CoordinateState, fresh_weights, preprocessed, update

SMALL = {"meta_lstm_units": 3, "meta_lstm_filters": 4, "train_queries": 2, "inner_steps": 3, "eval_steps": 3}
SHAPE = (1, 14, 14)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def begun(shape: tuple[int, int, int] = SHAPE, **changes: object) -> tuple[MetaLSTM, MetaState]:
    config: Config = small_config(**({"algorithm": "meta-lstm"} | SMALL | changes))
    algorithm = build_algorithm(config, shape, torch.device("cpu"))
    assert isinstance(algorithm, MetaLSTM)
    return algorithm, algorithm.initial_state(shaken(algorithm.begin(0).params))


def sampled(tasks: int, queries: int = 2) -> Episodes:
    return EpisodeSampler(easy_store(12, shape=SHAPE), 3, 2, queries, torch.float64).sample(tasks, seeded(0))


def forward(
    p: dict[str, torch.Tensor], x: torch.Tensor, averages: list[list[torch.Tensor]] | None = None, use: bool = False
) -> torch.Tensor:
    """One learner: convolution, normalisation, ReLU, pooling rounding down."""
    for block in range(4):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), p[f"convs.{block}.weight"], p[f"convs.{block}.bias"])
        if use:
            assert averages is not None
            mean, variance = averages[block]
        else:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            if averages is not None:
                unbiased = x.var((0, 2, 3), unbiased=True)
                averages[block][0] = 0.05 * averages[block][0] + 0.95 * mean.detach()
                averages[block][1] = 0.05 * averages[block][1] + 0.95 * unbiased.detach()
        x = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + 1e-3)
        x = torch.relu(x * p[f"norms.{block}.weight"][:, None, None] + p[f"norms.{block}.bias"][:, None, None])
        if x.shape[-1] > 1:
            x = F.max_pool2d(x, 2)
    return x.flatten(1) @ p["head.weight"].t() + p["head.bias"]


def preprocessed_values(value: torch.Tensor) -> list[float]:
    """The two numbers of Andrychowicz et al., appendix A, with p = 10."""
    number = float(value)
    if abs(number) >= math.exp(-10):
        return [math.log(abs(number)) / 10, math.copysign(1.0, number)]
    return [-1.0, math.exp(10) * number]


def plain_update(
    w: dict[str, torch.Tensor], theta: torch.Tensor, gradient: torch.Tensor, inputs: list[float], state: tuple
) -> tuple[torch.Tensor, tuple]:
    """One coordinate."""
    hidden, cell, forget_before, admit_before = state
    gates = w["lstm.weight"] @ torch.cat([torch.tensor(inputs, dtype=torch.float64), hidden]) + w["lstm.bias"]
    admit, forget, new, show = gates.split(len(hidden))
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(admit) * torch.tanh(new)
    hidden = torch.sigmoid(show) * torch.tanh(cell)
    seen_forget = torch.cat([hidden, theta[None], forget_before[None]])
    seen_admit = torch.cat([hidden, theta[None], admit_before[None]])
    forget_now = w["forget.weight"] @ seen_forget + w["forget.bias"]
    admit_now = w["admit.weight"] @ seen_admit + w["admit.bias"]
    theta = torch.sigmoid(forget_now) * theta - torch.sigmoid(admit_now) * gradient
    return theta, (hidden, cell, forget_now, admit_now)


def fresh(units: int) -> tuple:
    zero = torch.zeros((), dtype=torch.float64)
    return torch.zeros(units, dtype=torch.float64), torch.zeros(units, dtype=torch.float64), zero, zero


def test_an_update_is_the_papers_coordinate_by_coordinate() -> None:
    """Three updates of 6 coordinates, two of them with gradients below exp(-10), to 1e-10."""
    weights = {name: p.double() * 30 if "bias" not in name else p.double() for name, p in
               fresh_weights(3, seeded(0)).items()}  # fmt: skip
    theta = torch.randn(6, generator=seeded(1), dtype=torch.float64)
    plain = theta.clone()
    state, states = CoordinateState.fresh(3, theta), [fresh(3) for _ in range(6)]
    for step in range(3):
        gradient = torch.randn(6, generator=seeded(2 + step), dtype=torch.float64)
        gradient[2:4] *= 1e-6
        loss = torch.tensor(0.7 + step, dtype=torch.float64)
        inputs = torch.cat([preprocessed(loss.expand(6)), preprocessed(gradient)])
        theta, state = update(weights, theta, gradient, inputs, state)
        for at in range(6):
            its = preprocessed_values(loss) + preprocessed_values(gradient[at])
            plain[at], states[at] = plain_update(weights, plain[at].clone(), gradient[at], its, states[at])
        torch.testing.assert_close(theta, plain, rtol=0, atol=1e-10)
        torch.testing.assert_close(state.hidden, torch.stack([each[0] for each in states], 1), rtol=0, atol=1e-10)


def test_preprocessing_at_both_sides_of_the_border() -> None:
    border = math.exp(-10)
    values = torch.tensor([2.0, -0.5, border * 1.01, border * 0.99, -border / 2, 0.0], dtype=torch.float64)
    expected = torch.tensor([preprocessed_values(value) for value in values], dtype=torch.float64).t()
    torch.testing.assert_close(preprocessed(values), expected, rtol=0, atol=1e-10)
    assert expected[:, 2].tolist() == pytest.approx([-1.0, 1.0], abs=2e-3)
    assert expected[:, 4].tolist() == pytest.approx([-1.0, -0.5])


def plain_task(
    algorithm: MetaLSTM, leaves: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> tuple[dict[str, torch.Tensor], list[list[torch.Tensor]]]:
    """A learner after three updates, differentiable in ``leaves``, second derivatives dropped."""
    w = {name.removeprefix("optimiser."): p for name, p in leaves.items() if name.startswith("optimiser.")}
    theta = {name: p for name, p in leaves.items() if not name.startswith("optimiser.")}
    averages = [[torch.zeros(4).double(), torch.ones(4).double()] for _ in range(4)]
    states = {name: [fresh(3) for _ in range(p.numel())] for name, p in theta.items()}
    for _ in range(3):
        cut = {name: p.detach().requires_grad_() for name, p in theta.items()}
        loss = F.cross_entropy(forward(cut, x, averages), y)
        gradients = dict(zip(cut, torch.autograd.grad(loss, list(cut.values())), strict=True))
        after = {}
        for name, p in theta.items():
            numbers, slopes, moved = p.flatten(), gradients[name].flatten(), []
            for at in range(p.numel()):
                its = preprocessed_values(loss.detach()) + preprocessed_values(slopes[at])
                number, states[name][at] = plain_update(w, numbers[at], slopes[at], its, states[name][at])
                moved.append(number)
            after[name] = torch.stack(moved).view(p.shape)
        theta = after
    return theta, averages


def test_the_meta_gradient_is_the_plain_one() -> None:
    """Two tasks, three updates: loss and gradient of every meta-learned number, to 1e-10."""
    algorithm, state = begun()
    episodes = sampled(2)
    computed = algorithm.meta_gradient(state, episodes, seeded(1))
    leaves = {name: p.clone().requires_grad_() for name, p in state.params.items()}
    losses = []
    for task in range(2):
        theta, _ = plain_task(algorithm, leaves, episodes.support_x[task], episodes.support_y[task])
        losses.append(F.cross_entropy(forward(theta, episodes.query_x[task]), episodes.query_y[task]))
    loss = torch.stack(losses).mean()
    assert float(computed.loss) == pytest.approx(float(loss.detach()), abs=1e-10)
    for name, expected in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        torch.testing.assert_close(computed.gradient[name], expected, rtol=0, atol=1e-10)
    assert float(computed.gradient["optimiser.lstm.weight"].abs().max()) > 1e-8
    assert float(computed.gradient["convs.0.weight"].abs().max()) > 1e-4


def test_queries_are_normalised_by_the_support_sets_averages() -> None:
    """Alone by the averages, together by their own batch: both against the reference, to 1e-10."""
    algorithm, state = begun()
    episodes = sampled(2)
    adapted = algorithm.adapt(state, episodes.support_x, episodes.support_y, torch.empty(2, 0))
    alone, together = adapted.inductive(episodes.query_x), adapted.transductive(episodes.query_x)
    for task in range(2):
        theta, averages = plain_task(algorithm, state.params, episodes.support_x[task], episodes.support_y[task])
        queries = episodes.query_x[task]
        torch.testing.assert_close(alone[task], forward(theta, queries, averages, use=True), rtol=0, atol=1e-10)
        torch.testing.assert_close(together[task], forward(theta, queries), rtol=0, atol=1e-10)
    torch.testing.assert_close(adapted.inductive(episodes.query_x), alone, rtol=0, atol=0)  # labelling leaves no trace
    torch.testing.assert_close(adapted.inductive(episodes.query_x[:, 2:3]), alone[:, 2:3], rtol=0, atol=1e-12)


def test_episodes_leave_no_averages_behind() -> None:
    algorithm, state = begun()
    episodes = sampled(4)
    all_tasks = algorithm.adapt(state, episodes.support_x, episodes.support_y, torch.empty(4, 0)).inductive(
        episodes.query_x
    )
    for task in range(4):
        its = episodes[task : task + 1]
        single = algorithm.adapt(state, its.support_x, its.support_y, torch.empty(1, 0)).inductive(its.query_x)
        torch.testing.assert_close(single[0], all_tasks[task], rtol=0, atol=1e-10)


def test_it_starts_as_gradient_descent_with_a_small_rate() -> None:
    weights = fresh_weights(20, seeded(0))
    assert 4 <= float(weights["forget.bias"]) <= 5
    assert -5 <= float(weights["admit.bias"]) <= -4
    theta, gradient = torch.ones(4), torch.full((4,), 2.0)
    values_read = torch.cat([preprocessed(torch.ones(4)), preprocessed(gradient)])
    after, _ = update(weights, theta, gradient, values_read, CoordinateState.fresh(20, theta))
    assert bool(((after > 0.93) & (after < 0.98)).all())


def test_an_own_network_is_labelled_with_the_support_set() -> None:
    """It keeps no averages: each query is normalised in a separate batch with the support set."""

    def network(shape: tuple[int, int, int], way: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(49, way))

    config = small_config(**({"algorithm": "meta-lstm"} | SMALL | {"execution": "loop"}))
    algorithm = build_algorithm(config, TINY, torch.device("cpu"), network=network)
    state = algorithm.begin(0)
    episodes = EpisodeSampler(easy_store(12, shape=TINY), 3, 2, 2).sample(5, seeded(0))
    computed = algorithm.meta_gradient(state, episodes, seeded(0))
    assert float(computed.gradient["1.weight"].abs().max()) > 1e-4
    predictions = algorithm.predict(state, episodes, seeded(0))
    assert predictions.transductive is not None
    assert torch.equal(predictions.transductive, predictions.inductive)  # no BatchNorm, no difference


def test_executions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="execution is matmul; the learner of meta-lstm runs with"):
        begun(execution="matmul")
