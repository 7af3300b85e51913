"""Compiled code of our own against autograd, optimisers and itself."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from tests.easy import REPOSITORY, skip_without_native, small_config
from torchreptile.algorithms.optim.inner_loop import BETA2, EPS, InnerLoop, InnerState
from torchreptile.models.built_in import Params
from torchreptile.models.conv4.native import NativeConv4, Rule
from torchreptile.models.conv4.network import Conv4, for_images
from torchreptile.models.execution.choose import choose_execution
from torchreptile.models.execution.execution import stack

CPU = torch.device("cpu")
Kind = Literal["stride", "pool"]


@pytest.fixture(autouse=True)
def compiled() -> None:
    skip_without_native()


@pytest.fixture
def threads() -> Iterator[None]:
    """Whatever number of threads a test sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_params(net: Conv4, tasks: int, dtype: torch.dtype = torch.float64) -> Params:
    """(T, ...) each, different for every task, none of them 0 or 1."""
    generator = torch.Generator().manual_seed(3)
    params = {}
    for name, p in net.named_parameters():
        middle = 1.0 if "norms" in name and name.endswith("weight") else 0.0
        noise = torch.randn(tasks, *p.shape, generator=generator, dtype=torch.float64)
        params[name] = (middle + 0.2 * noise).to(dtype)
    return params


def random_batch(
    net: Conv4, tasks: int, batch: int, size: int, dtype: torch.dtype = torch.float64, seed: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (T, B, C, H, W) from 0 to 1 and labels (T, B)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (tasks, batch, net.convs[0].in_channels, size, size)
    images = torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)
    return images, torch.randint(net.head.out_features, (tasks, batch), generator=generator)


def by_autograd(net: Conv4, params: Params, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, Params]:
    """Losses (T,) and gradients, one task at a time."""
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    losses = []
    for task in range(len(x)):
        logits = functional_call(net, {name: p[task] for name, p in leaves.items()}, (x[task],))
        losses.append(F.cross_entropy(logits, y[task]))
    gradient = torch.autograd.grad(sum(losses), list(leaves.values()))
    return torch.stack(losses).detach(), dict(zip(leaves, gradient, strict=True))


def is_idle_bias(name: str) -> bool:
    """A convolution's bias, whose gradient is 0 but for rounding."""
    return name.startswith("convs") and name.endswith("bias")


@pytest.mark.parametrize(
    ("kind", "size", "channels", "filters", "way", "tasks", "batch", "count"),
    [
        ("stride", 28, 1, 64, 5, 5, 10, 2),
        ("stride", 29, 2, 16, 2, 1, 7, 2),
        ("stride", 30, 3, 32, 20, 4, 11, 1),
        ("stride", 31, 1, 6, 3, 7, 3, 2),
        ("stride", 27, 3, 48, 5, 2, 1, 3),
        ("stride", 5, 5, 8, 3, 3, 13, 2),
        ("pool", 64, 3, 32, 5, 1, 5, 2),
        ("pool", 29, 2, 16, 20, 3, 11, 2),
        ("pool", 24, 1, 64, 2, 5, 10, 1),
        ("pool", 31, 3, 20, 3, 2, 4, 5),
        ("pool", 3, 1, 7, 3, 2, 26, 2),
    ],
)
@pytest.mark.usefixtures("threads")
def test_losses_gradients_and_logits_are_autograds(
    kind: Kind, size: int, channels: int, filters: int, way: int, tasks: int, batch: int, count: int
) -> None:
    torch.set_num_threads(count)
    net = Conv4(channels, size, way, filters, kind)
    params, (x, y) = random_params(net, tasks), random_batch(net, tasks, batch, size)
    losses, gradient = NativeConv4(net).loss_and_gradient(params, x, y)
    expected_losses, expected = by_autograd(net, params, x, y)
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=1e-10)
    assert gradient.keys() == expected.keys()
    for name, g in expected.items():
        torch.testing.assert_close(gradient[name], g, rtol=0, atol=1e-10)
        assert is_idle_bias(name) or g.abs().max() > 1e-5
    with torch.no_grad():
        logits = NativeConv4(net).forward(params, x)
        torch.testing.assert_close(logits, net.forward_grouped(params, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (3, 31, 31)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_inner_steps_are_those_of_torchs_optimisers(optimizer: str, shape: tuple[int, int, int]) -> None:
    net, tasks, steps, lr = for_images(shape, way=4), 3, 3, 0.05 if optimizer == "sgd" else 1e-3
    phi = {name: p[0] for name, p in random_params(net, 1).items()}
    settings = small_config(inner_optimizer=optimizer, inner_lr=lr).inner
    loop = InnerLoop(settings, choose_execution("native", net, shape, CPU))
    params, state = loop.stacked(phi, InnerState.fresh(phi, optimizer, 1), tasks)
    batches = [random_batch(net, tasks, 6, shape[-1], seed=seed) for seed in range(steps)]
    losses = loop.run(params, state, batches)
    assert int(state.steps) == steps
    net = net.double()
    for task in range(tasks):
        net.load_state_dict(phi)
        adam = torch.optim.Adam(net.parameters(), lr, betas=(0.0, BETA2), eps=EPS)
        taken = adam if optimizer == "adam" else torch.optim.SGD(net.parameters(), lr)
        for step, (x, y) in enumerate(batches):
            taken.zero_grad()
            loss = F.cross_entropy(net(x[task]), y[task])
            loss.backward()
            for name, p in net.named_parameters():
                if is_idle_bias(name):
                    p.grad.zero_()  # what Adam would make of its rounding is no part of the comparison
            taken.step()
            assert float(losses[step, task]) == pytest.approx(loss.item(), abs=1e-10)
        for name, p in net.named_parameters():
            torch.testing.assert_close(params[name][task], p.detach(), rtol=0, atol=1e-10)
            if optimizer == "adam":
                torch.testing.assert_close(state.v[name][task], adam.state[p]["exp_avg_sq"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64)])
@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_no_bit(shape: tuple[int, int, int]) -> None:
    net = for_images(shape, way=5)
    params, (x, y) = random_params(net, 5, torch.float32), random_batch(net, 5, 10, shape[-1], torch.float32)
    results = []
    for count in (1, 2, 3, 7, 2):
        torch.set_num_threads(count)
        results.append(NativeConv4(net).loss_and_gradient(params, x, y))
    for losses, gradient in results[1:]:
        assert torch.equal(losses, results[0][0])
        assert all(torch.equal(g, results[0][1][name]) for name, g in gradient.items())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64)])
def test_float32_is_float64_rounded(shape: tuple[int, int, int]) -> None:
    net = for_images(shape, way=5)
    params, (x, y) = random_params(net, 2), random_batch(net, 2, 10, shape[-1])
    exact_losses, exact = NativeConv4(net).loss_and_gradient(params, x, y)
    losses, gradient = NativeConv4(net).loss_and_gradient({n: p.float() for n, p in params.items()}, x.float(), y)
    torch.testing.assert_close(losses.double(), exact_losses, rtol=0, atol=1e-4)
    for name, g in exact.items():
        torch.testing.assert_close(gradient[name].double(), g, rtol=0, atol=1e-3 * float(g.abs().max()) + 1e-12)


@pytest.mark.parametrize("kind", ["stride", "pool"])
def test_autograds_rules_at_the_edges(kind: Kind) -> None:
    """Equal pixels, of which pooling takes the first; a scale of 0 and below; images of one colour; a large mean."""
    net = Conv4(1, 24, 3, 4, kind)
    params, (x, y) = random_params(net, 3), random_batch(net, 3, 4, 24)
    params["norms.0.weight"][0, :2] = torch.tensor([0.0, -1.0])
    x[0] = (x[0] > 0.9).double()  # most pixels are alike
    x[1, 2:] = 0.7
    x[2] += 1000
    losses, gradient = NativeConv4(net).loss_and_gradient(params, x, y)
    expected_losses, expected = by_autograd(net, params, x, y)
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=1e-9)
    for name, g in expected.items():
        torch.testing.assert_close(gradient[name], g, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["image", "kernel", "scale", "head"])
@pytest.mark.parametrize("kind", ["stride", "pool"])
def test_what_is_not_a_number_shows_in_its_own_task(kind: Kind, where: str, bad: float) -> None:
    net = Conv4(1, 24, 3, 16, kind)
    params, (x, y) = random_params(net, 3, torch.float32), random_batch(net, 3, 4, 24, torch.float32)
    if where == "image":
        x[1, 2, 0, 12, 12] = bad
    else:
        name = {"kernel": "convs.2.weight", "scale": "norms.3.weight", "head": "head.weight"}[where]
        params[name][1].flatten()[0] = bad
    losses, _ = NativeConv4(net).loss_and_gradient(params, x, y)
    assert not losses[1].isfinite()
    expected, _ = by_autograd(net, params, x, y)
    assert not expected[1].isfinite()
    assert losses[[0, 2]].isfinite().all()


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_memory_may_lie_in_any_order(optimizer: Literal["sgd", "adam"]) -> None:
    """Kernels in another order, images transposed, everything at odd addresses: the same numbers, in place."""
    net = Conv4(2, 15, 3, 16, "stride")
    plain, (x, y) = random_params(net, 2, torch.float32), random_batch(net, 2, 5, 15, torch.float32)
    moments = {name: p.square() for name, p in plain.items()}

    def shifted(p: torch.Tensor) -> torch.Tensor:
        return torch.cat([p.new_zeros(1), p.flatten()])[1:].view(p.shape)

    outcomes = []
    for change in (torch.clone, shifted, lambda p: p.transpose(0, -1).contiguous().transpose(0, -1)):
        params = {name: change(p) for name, p in plain.items()}
        v = {name: change(p) for name, p in moments.items()}
        losses = NativeConv4(net).step(params, v, change(x), change(y), Rule(optimizer, 0.1, BETA2, EPS, 0.5))
        outcomes.append([losses, *params.values(), *v.values()])
    for outcome in outcomes[1:]:
        assert all(torch.equal(one, other) for one, other in zip(outcome, outcomes[0], strict=True))
    moved = dict(zip(plain, outcomes[0][1:], strict=False))
    assert not torch.equal(moved["convs.1.weight"], plain["convs.1.weight"])
    assert torch.equal(moved["convs.1.bias"], plain["convs.1.bias"])


def test_what_does_not_fit_is_refused() -> None:
    net = Conv4(1, 28, 3, 16, "stride")
    params, (x, y) = random_params(net, 2), random_batch(net, 2, 5, 28)
    native = NativeConv4(net)
    for label in (-1, 3):
        with pytest.raises(IndexError, match="a label is not one of the network's classes"):
            native.loss_and_gradient(params, x, torch.full_like(y, label))
    with pytest.raises(ValueError, match=r"images are \(2, 5, 1, 33, 33\)"):
        native.loss_and_gradient(params, torch.zeros(2, 5, 1, 33, 33), y)
    with pytest.raises(ValueError, match=r"labels are \(2, 4\); they must be \(2, 5\)"):
        native.loss_and_gradient(params, x, y[:, :4])
    with pytest.raises(ValueError, match=r"convs.0.weight is torch.float64 \(2, 16, 1, 3, 3\) on cpu; it must be"):
        native.loss_and_gradient(params, x[:1], y[:1])
    with pytest.raises(ValueError, match=r"parameters are torch.bfloat16; native computes in float32 and float64"):
        native.loss_and_gradient({name: p.bfloat16() for name, p in params.items()}, x, y)


@pytest.mark.parametrize("wrong", ["missing", "short", "float32"])
def test_a_second_moment_that_does_not_fit_is_refused(wrong: str) -> None:
    """The compiled code would write beyond its end."""
    net = for_images((1, 28, 28), 3)
    params, (x, y) = random_params(net, 2), random_batch(net, 2, 4, 28)
    v = {name: torch.zeros_like(p) for name, p in params.items()}
    if wrong == "missing":
        v = {}
    else:
        v["head.weight"] = v["head.weight"].float() if wrong == "float32" else torch.zeros(1, dtype=torch.float64)
    before = {name: p.clone() for name, p in params.items()}
    with pytest.raises(ValueError, match=r"the second moment of .* it must be torch.float64"):
        NativeConv4(net).step(params, v, x, y, Rule("adam", 1e-3, BETA2, EPS, 1.0))
    assert all(torch.equal(p, before[name]) for name, p in params.items())


def test_forward_stays_differentiable() -> None:
    net = for_images((1, 28, 28), way=3)
    params, (x, _) = random_params(net, 2), random_batch(net, 2, 4, 28)
    native = NativeConv4(net)

    def total(params: Params) -> torch.Tensor:
        return native.forward(params, x).square().sum()

    by_grad = torch.func.grad(total)(params)
    expected = torch.func.grad(lambda p: net.forward_grouped(p, x).square().sum())(params)
    assert torch.equal(by_grad["convs.0.weight"], expected["convs.0.weight"])
    assert expected["convs.0.weight"].abs().max() > 0


@pytest.mark.usefixtures("threads")
def test_torch_leaves_the_processors_to_it_and_gets_them_back() -> None:
    torch.set_num_threads(3)
    net = for_images((1, 28, 28), way=3)
    execution, native = choose_execution("native", net, (1, 28, 28), CPU), NativeConv4(net)
    params, (x, y) = random_params(net, 4), random_batch(net, 4, 3, 28)
    with execution.claim():
        assert torch.get_num_threads() == 1
        with execution.claim():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with pytest.raises(IndexError), native.claim():
        native.loss_and_gradient(params, x, y + 3)
    assert torch.get_num_threads() == 3


def test_stacked_parameters_need_no_copy() -> None:
    """The order in memory that the inner loop gives them is the one that the compiled code wants."""
    net = for_images((1, 28, 28), way=3)
    phi = {name: p[0] for name, p in random_params(net, 1).items()}
    execution = choose_execution("native", net, (1, 28, 28), CPU)
    kernels = stack(phi, 2, execution.kernel_order)["convs.1.weight"]
    assert kernels.permute(0, 3, 4, 2, 1).is_contiguous()


def test_a_forked_process_makes_threads_of_its_own(tmp_path: Path) -> None:
    """Torch's own threads do not survive a fork, so nothing here is large enough for torch to share among them."""
    script = tmp_path / "fork.py"
    script.write_text(
        "import os, torch\n"
        "from torchreptile.models.conv4.network import for_images\n"
        "from torchreptile.models.conv4.native import NativeConv4\n"
        "torch.set_num_threads(2)\n"
        "net = for_images((1, 28, 28), 3)\n"
        "net.initialise(torch.Generator().manual_seed(0))\n"
        "from torchreptile.models.execution.execution import TAPS_FIRST, stack\n"
        "params = stack({n: p.detach() for n, p in net.named_parameters()}, 3, TAPS_FIRST)\n"
        "batch = torch.rand(3, 4, 1, 28, 28), torch.zeros(3, 4).long()\n"
        "losses, _ = NativeConv4(net).loss_and_gradient(params, *batch)\n"
        "child = os.fork()\n"
        "again, _ = NativeConv4(net).loss_and_gradient(params, *batch)\n"
        "if not child:\n"
        "    os._exit(0 if torch.equal(losses, again) else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
