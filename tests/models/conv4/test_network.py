"""The paper's networks: sizes and padding against published facts, three ways of running against one another."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from tests.reference import MiniImageNetNet, OmniglotNet
from torchreptile.models.conv4 import matmul
from torchreptile.models.conv4.fused import FusedConv4
from torchreptile.models.conv4.layers import same_padding
from torchreptile.models.conv4.matmul import Block
from torchreptile.models.conv4.matmul_gpu import FusableBlock
from torchreptile.models.conv4.network import Conv4, for_images
from torchreptile.models.execution.execution import TAPS_FIRST, stack

SHAPES = {"omniglot": (1, 28, 28), "mini-imagenet": (3, 84, 84)}


def random_params(module: Conv4, tasks: int) -> dict[str, torch.Tensor]:
    """(T, ...) float64 parameters, different for every task, none of them 0 or 1."""
    generator = torch.Generator().manual_seed(3)
    stacked = {}
    for name, p in module.named_parameters():
        middle = 1.0 if "norms" in name and name.endswith("weight") else 0.0
        stacked[name] = middle + 0.2 * torch.randn(tasks, *p.shape, generator=generator, dtype=torch.float64)
    return stacked


def random_images(tasks: int, batch: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.rand(tasks, batch, *shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def test_same_padding_at_stride_two() -> None:
    """The pads of TensorFlow's 'SAME' along 28 -> 14 -> 7 -> 4 -> 2."""
    assert [same_padding(size, 2) for size in (28, 14, 7, 4)] == [(0, 1), (0, 1), (1, 1), (0, 1)]
    assert [same_padding(size, 1) for size in (84, 42, 21, 11)] == [(1, 1)] * 4


@pytest.mark.parametrize("size", [4, 7])
def test_same_convolution_equals_correlation_by_hand(size: int) -> None:
    """Output pixel (i, j) sees the input around (2i, 2j) from its pad on, and zeros outside: written as loops."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(size, size, generator=generator).double()
    kernel = torch.rand(3, 3, generator=generator).double()
    first = {4: 0, 7: -1}[size]  # 'SAME': an even size starts at its first pixel, an odd one a pixel before it
    expected = torch.zeros(math.ceil(size / 2), math.ceil(size / 2), dtype=torch.float64)
    for i in range(len(expected)):
        for j in range(len(expected)):
            for a in range(3):
                for b in range(3):
                    y, x = 2 * i + first + a, 2 * j + first + b
                    if 0 <= y < size and 0 <= x < size:
                        expected[i, j] += image[y, x] * kernel[a, b]
    before, after = same_padding(size, 2)
    padded = F.pad(image[None, None], (before, after, before, after))
    result = F.conv2d(padded, kernel[None, None], stride=2)[0, 0]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "count"), [("omniglot", 113_221), ("mini-imagenet", 34_661)])
def test_parameter_counts_are_the_published_ones(name: str, count: int) -> None:
    module = for_images(SHAPES[name], way=5)
    assert sum(p.numel() for p in module.parameters()) == count
    assert not list(module.buffers())  # no running averages


@pytest.mark.parametrize("name", SHAPES)
def test_initialise_is_glorot_uniform(name: str) -> None:
    module = for_images(SHAPES[name], way=5)
    module.initialise(torch.Generator().manual_seed(0))
    for key, weights in module.named_parameters():
        p = weights.detach()
        if p.ndim == 1:
            assert (p == (1.0 if "norms" in key and key.endswith("weight") else 0.0)).all()
            continue
        fan_in, fan_out = p[0].numel(), p.numel() // p.shape[1]
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert float(p.abs().max()) <= bound
        assert float(p.abs().max()) > 0.95 * bound
        # A uniform's standard deviation is bound / sqrt(3); 10% is over 4 standard errors of the smallest kernel.
        assert float(p.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_initialise_draws_by_its_generator_alone() -> None:
    drawn = []
    for seed in (0, 0, 1):
        module = for_images((1, 28, 28), way=5)
        torch.rand(seed + 1)  # the global generator must not matter
        module.initialise(torch.Generator().manual_seed(seed))
        drawn.append(module.head.weight.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("name", SHAPES)
def test_batch_statistics_are_used_in_eval_mode_too(name: str) -> None:
    module = for_images(SHAPES[name], way=5)
    module.initialise(torch.Generator().manual_seed(0))
    images = random_images(1, 4, SHAPES[name])[0].float()
    with torch.no_grad():
        trained = module.train()(images)
        assert torch.equal(module.eval()(images), trained)
        alone = module(images[:2])
    assert not torch.allclose(alone, trained[:2], atol=1e-4)  # an image's logits depend on its batch


@pytest.mark.parametrize("name", SHAPES)
def test_all_ways_of_running_agree_with_the_reference_network(name: str) -> None:
    tasks, module = 3, for_images(SHAPES[name], way=5)
    params, images = random_params(module, tasks), random_images(tasks, 4, SHAPES[name])
    grouped = module.forward_grouped(params, images)
    batched = matmul.forward(module, params, images)
    for task in range(tasks):
        own = {key: p[task] for key, p in params.items()}
        reference = (OmniglotNet if name == "omniglot" else MiniImageNetNet)(5).double()
        reference.load_state_dict(own)
        with torch.no_grad():
            expected = reference(images[task])
        single = torch.func.functional_call(module, own, (images[task],))
        for result in (single, grouped[task], batched[task]):
            torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [28, 29, 30, 31])  # every padding of a strided net: even and odd maps
@pytest.mark.parametrize("network", ["stride", "pool"])
def test_the_backward_pass_written_out_is_autograds(network: Literal["stride", "pool"], size: int) -> None:
    module = Conv4(2, size, 5, hidden=6, downsample=network)
    params, images = random_params(module, 3), random_images(3, 4, (2, size, size))
    labels = torch.randint(5, (3, 4), generator=torch.Generator().manual_seed(8))

    def total(params: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = module.forward_grouped(params, images)
        return 3 * F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    expected = torch.func.grad(total)(params)
    forms = [partial(matmul.loss_and_gradient, module, block=block) for block in (Block, FusableBlock)]
    if network == "pool":
        forms.append(FusedConv4(compile_blocks=False).loss_and_gradient)
    for form in forms:
        losses, gradient = form(params, images, labels)
        assert float(losses.sum()) == pytest.approx(float(total(params)), abs=1e-10)
        assert gradient.keys() == expected.keys()
        for name, g in expected.items():
            torch.testing.assert_close(gradient[name], g, rtol=0, atol=1e-10)
            assert g.abs().max() > 1e-4 or (name.startswith("convs") and name.endswith("bias"))


def test_pooled_networks_keep_autograds_rules_at_their_edges() -> None:
    """Equal pixels, of which the first counts; a scale of 0 and below; images of one colour; a large mean."""
    module = Conv4(1, 24, 3, hidden=4, downsample="pool")
    params, images = random_params(module, 3), random_images(3, 4, (1, 24, 24))
    params["norms.0.weight"][0, :2] = torch.tensor([0.0, -1.0])
    images[0] = (images[0] > 0.9).double()  # most pixels are alike
    images[1, 2:] = 0.7
    images[2] += 1000
    labels = torch.randint(3, (3, 4), generator=torch.Generator().manual_seed(8))

    def total(params: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = torch.stack(
            [torch.func.functional_call(module, {n: p[t] for n, p in params.items()}, (images[t],)) for t in range(3)]
        )
        return 3 * F.cross_entropy(logits.flatten(0, 1), labels.flatten())

    expected = torch.func.grad(total)(params)
    forms = (
        FusedConv4(compile_blocks=False).loss_and_gradient,
        partial(matmul.loss_and_gradient, module, block=FusableBlock),
    )
    for form in forms:
        losses, gradient = form(params, images, labels)
        assert float(losses.sum()) == pytest.approx(float(total(params)), abs=1e-9)
        for name, g in expected.items():
            torch.testing.assert_close(gradient[name], g, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SHAPES)
def test_what_a_gpu_compiles_is_one_graph_and_meets_the_optimiser_as_it_lies(name: str, precision: torch.dtype) -> None:
    """Gradients in float32 with the strides of the parameters: nothing is copied on the way to the fused optimiser."""
    module = for_images(SHAPES[name], way=5)
    fresh = {key: p[0].float() for key, p in random_params(module, 1).items()}
    params = stack(fresh, 3, TAPS_FIRST)
    images, labels = random_images(3, 4, SHAPES[name]).float(), torch.arange(12).view(3, 4) % 5
    eager = partial(matmul.loss_and_gradient, module, block=FusableBlock)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        losses, gradient = torch.compile(eager, fullgraph=True, dynamic=False, backend="aot_eager")(
            params, images, labels
        )
        expected, _ = eager(params, images, labels)
    torch.testing.assert_close(losses, expected)
    assert {key: g.stride() for key, g in gradient.items()} == {key: p.stride() for key, p in params.items()}
    assert {g.dtype for g in gradient.values()} == {torch.float32}


def test_a_product_over_rows_that_cannot_be_cut_is_done_whole() -> None:
    module = Conv4(1, 8, 3, hidden=4, downsample="stride")
    params, images = random_params(module, 1), random_images(1, 521, (1, 8, 8))  # a prime number of images
    labels = torch.arange(521).view(1, 521) % 3
    gradients = [matmul.loss_and_gradient(module, params, images, labels, block)[1] for block in (Block, FusableBlock)]
    for name, g in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], g, rtol=0, atol=1e-10)


def test_under_autocast_maps_are_kept_in_its_precision() -> None:
    module = for_images((3, 64, 64), way=3)
    params = {name: p.float() for name, p in random_params(module, 1).items()}
    images, labels = random_images(1, 6, (3, 64, 64)).float(), torch.arange(6).view(1, 6) % 3
    exact, _ = FusedConv4(compile_blocks=False).loss_and_gradient(params, images, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, gradient = FusedConv4(compile_blocks=False).loss_and_gradient(params, images, labels)
    assert {g.dtype for g in gradient.values()} == {torch.float32}
    assert 0 < abs(float(rounded - exact)) < 0.05


@pytest.mark.parametrize("way", ["grouped", "matmul"])
def test_no_task_touches_another(way: str) -> None:
    """Other images for task 1 leave the logits of tasks 0 and 2 as they were."""
    module = for_images((1, 28, 28), way=5)
    forward = {"grouped": module.forward_grouped, "matmul": partial(matmul.forward, module)}[way]
    params, images = random_params(module, 3), random_images(3, 4, (1, 28, 28))
    before = forward(params, images)
    images[1] = 1 - images[1]
    after = forward(params, images)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=1e-12)
    assert not torch.allclose(after[1], before[1], atol=1e-3)


def test_small_images_get_strides_and_large_ones_pooling() -> None:
    assert for_images((1, 63, 63), 5).stride == 2
    assert for_images((3, 64, 64), 5).stride == 1
