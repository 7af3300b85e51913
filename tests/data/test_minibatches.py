"""The stream of mini-batches against the reference's dealing of images one by one, and its promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.easy import drawn_orders
from tests.reference import cycling_batches
from torchreptile.data.minibatches import minibatches

sizes = {
    "images": st.integers(1, 30),
    "batch": st.integers(1, 40),
    "steps": st.integers(1, 12),
    "seed": st.integers(0, 2**31),
}


def test_the_eighth_batch_of_ten_mixes_two_passes_over_75_images() -> None:
    drawn = minibatches(4, 75, 10, 8, False, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 8, 10)
    for task in drawn.tolist():
        first_seven = {image for batch in task[:7] for image in batch}
        assert len(first_seven) == 70
        left_over = set(range(75)) - first_seven
        assert set(task[7][:5]) == left_over
        assert len(set(task[7][5:])) == 5  # of a pass of its own: these may repeat what was seen


def test_the_second_pass_is_shuffled_again() -> None:
    drawn = minibatches(1, 20, 20, 2, False, torch.Generator().manual_seed(0))[0]
    assert sorted(drawn[0].tolist()) == sorted(drawn[1].tolist()) == list(range(20))
    assert drawn[0].tolist() != drawn[1].tolist()


@settings(max_examples=100, deadline=None)
@given(**sizes)
def test_every_pass_is_a_permutation(images: int, batch: int, steps: int, seed: int) -> None:
    drawn = minibatches(2, images, batch, steps, False, torch.Generator().manual_seed(seed))
    assert drawn.shape == (2, steps, batch)
    for stream in drawn.flatten(1).tolist():
        for start in range(0, len(stream), images):
            part = stream[start : start + images]
            assert len(set(part)) == len(part)
            assert set(part) <= set(range(images))


@settings(max_examples=100, deadline=None)
@given(**sizes)
def test_equals_the_reference_stream(images: int, batch: int, steps: int, seed: int) -> None:
    drawn = minibatches(2, images, batch, steps, False, torch.Generator().manual_seed(seed))
    passes = math.ceil(steps * batch / images)
    orders = drawn_orders(2, passes, images, torch.Generator().manual_seed(seed))
    for task in range(2):
        assert drawn[task].tolist() == list(cycling_batches(orders[task], batch))[:steps]


@settings(max_examples=50, deadline=None)
@given(images=sizes["images"], steps=sizes["steps"], seed=sizes["seed"], data=st.data())
def test_replacement_repeats_nothing_inside_a_batch(images: int, steps: int, seed: int, data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, images))
    drawn = minibatches(3, images, batch, steps, True, torch.Generator().manual_seed(seed))
    assert drawn.shape == (3, steps, batch)
    for chosen in drawn.flatten(0, 1).tolist():
        assert len(set(chosen)) == batch
        assert set(chosen) <= set(range(images))


def test_replacement_batches_are_independent_and_cycling_ones_are_not() -> None:
    """Two batches of half the images: cycling never shares one, independent draws share half of them on average."""
    for replacement, expected in ((False, 0.0), (True, 5.0)):
        drawn = minibatches(400, 20, 10, 2, replacement, torch.Generator().manual_seed(0)).tolist()
        shared = [len(set(first) & set(second)) for first, second in drawn]
        assert sum(shared) / len(shared) == pytest.approx(expected, abs=0.3)  # sd of the mean is 0.06


@pytest.mark.parametrize("replacement", [False, True])
def test_every_image_is_equally_likely_first(replacement: bool) -> None:
    drawn = minibatches(6000, 6, 2, 1, replacement, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn[:, 0, 0], minlength=6)
    chi_square = float(((counts - 1000.0) ** 2 / 1000).sum())
    assert chi_square < 20.5  # 5 degrees of freedom: exceeded once in a thousand seeds


@pytest.mark.parametrize("replacement", [False, True])
def test_the_seed_decides_everything(replacement: bool) -> None:
    first, again, other = (minibatches(3, 20, 8, 5, replacement, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_tasks_have_streams_of_their_own() -> None:
    drawn = minibatches(3, 20, 8, 5, False, torch.Generator().manual_seed(0))
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
