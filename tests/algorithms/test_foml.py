"""First-order MAML against the reference: the update is the last inner step's weight change alone."""

from __future__ import annotations

import pytest
import torch

from tests.easy import double_params, easy_store, skip_without_native, small_config
from tests.reference import OmniglotNet
from tests.sidebyside import run_both
from torchreptile.algorithms.build import build_algorithm
from torchreptile.models.conv4.network import for_images


@pytest.mark.parametrize(
    ("execution", "tail", "replacement"),
    [("grouped", 0, False), ("grouped", 1, False), ("grouped", 0, True), ("loop", 1, True), ("loop", 0, False)],
)
def test_sgd_gives_the_reference_weights(execution: str, tail: int, replacement: bool) -> None:
    # With a tail 9 of 12 images are left for the body, so batches of 5 cross the border of a pass there too.
    tails = {"algorithm": "foml", "foml_tail": tail, "replacement": replacement, "execution": execution}
    both = run_both(small_config(inner_optimizer="sgd", inner_lr=0.1, meta_batch=2, **tails), easy_store(10))
    for name, expected in both.reference.weights().items():
        torch.testing.assert_close(both.state.params[name], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("algorithm", "tail"), [("reptile", 0), ("foml", 0), ("foml", 1)])
@pytest.mark.parametrize("execution", ["grouped", "native"])
def test_the_sum_of_losses_gives_the_reference_weights(execution: str, algorithm: str, tail: int) -> None:
    """A separate tail of 3 images goes down the sum of 3, whatever the mini-batches of 5 before."""
    skip_without_native(execution)
    tails = {"foml_tail": tail} if algorithm == "foml" else {}
    sums = {"inner_optimizer": "sgd", "inner_loss": "sum", "inner_lr": 0.02, "execution": execution}
    both = run_both(small_config(algorithm=algorithm, **tails, meta_batch=2, **sums), easy_store(10))
    for name, expected in both.reference.weights().items():
        torch.testing.assert_close(both.state.params[name], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("tail", [0, 1])
def test_the_loss_is_the_mean_over_inner_steps(tail: int) -> None:
    """As Reptile's is: the tail is one inner step of three here, not half of the training."""
    config = small_config(algorithm="foml", foml_tail=tail, inner_optimizer="sgd", inner_lr=0.1)
    ours, theirs = run_both(config, easy_store(10), outer_steps=1).losses[0]
    assert ours == pytest.approx(theirs, abs=1e-10)


@pytest.mark.parametrize("policy", ["share", "carry"])
@pytest.mark.parametrize("tail", [0, 2])
def test_adam_gives_the_reference_logits(policy: str, tail: int) -> None:
    both = run_both(small_config(algorithm="foml", foml_tail=tail, inner_state=policy, meta_batch=2), easy_store(10))
    images = easy_store(3, 4, seed=7).images.double() / 255
    stacked = {name: p[None] for name, p in both.state.params.items()}
    logits = for_images((1, 28, 28), 3).forward_grouped(stacked, images[None])[0]
    with torch.no_grad():
        torch.testing.assert_close(logits, both.reference.net(images), rtol=0, atol=1e-6)


def test_one_inner_step_is_reptile() -> None:
    """With a single inner step, the last step's change is the whole change: both algorithms agree."""
    params = {}
    for name in ("reptile", "foml"):
        config = small_config(algorithm=name, inner_optimizer="sgd", inner_lr=0.1, inner_steps=1)
        params[name] = run_both(config, easy_store(10), outer_steps=2).state.params
    for name, p in params["reptile"].items():
        torch.testing.assert_close(params["foml"][name], p, rtol=0, atol=1e-12)


def test_the_gradient_is_the_query_gradient_at_the_adapted_weights() -> None:
    """SGD, separate tail: the meta-gradient divided by the inner lr is MAML's first-order gradient, by autograd."""
    config = small_config(
        algorithm="foml", foml_tail=2, inner_optimizer="sgd", inner_lr=0.1, inner_steps=2, inner_batch=6, meta_batch=1
    )
    algorithm = build_algorithm(config, (1, 28, 28), torch.device("cpu"))
    state = algorithm.initial_state(double_params(config))
    sampler = algorithm.sampler(easy_store(10))
    assert (sampler.shots, sampler.queries) == (2, 2)
    sampler.dtype = torch.float64
    episode = sampler.sample(1, torch.Generator().manual_seed(0))
    # The body is one batch of all 6 support images, so that the order of drawing cannot matter.
    gradients = algorithm.meta_gradient(state, episode, torch.Generator().manual_seed(1))

    net = OmniglotNet(3).double()
    net.load_state_dict(state.params)
    loss = torch.nn.functional.cross_entropy(net(episode.support_x[0]), episode.support_y[0])
    for p, g in zip(net.parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
        p.data -= 0.1 * g
    loss = torch.nn.functional.cross_entropy(net(episode.query_x[0]), episode.query_y[0])
    for (name, _), g in zip(net.named_parameters(), torch.autograd.grad(loss, list(net.parameters())), strict=True):
        torch.testing.assert_close(gradients.gradient[name] / 0.1, g, rtol=0, atol=1e-9)
