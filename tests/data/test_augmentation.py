"""Moved and turned drawings: by how much, which way, and what comes in from outside."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torchreptile.core.config import TaskConfig
from torchreptile.data.augmentation import AUGMENTING_DRAWS, DRAWS, augmented, augmenting, jittered
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler

MIDDLE = 0.5  # of a draw: no change


def dot(x: int, y: int, size: int = 40) -> Tensor:
    """(1, 1, size, size) paper with a blot of 3 x 3 pixels of ink."""
    image = torch.ones(1, 1, size, size)
    image[..., y - 1 : y + 2, x - 1 : x + 2] = 0
    return image


def where(image: Tensor) -> tuple[float, float]:
    """The ink's centre, from the middle of the image, in pixels."""
    ink = 1 - image[0, 0]
    down, across = (torch.arange(side) - (side - 1) / 2 for side in ink.shape)
    return float((ink.sum(0) * across).sum() / ink.sum()), float((ink.sum(1) * down).sum() / ink.sum())


def test_the_middle_of_the_draws_changes_nothing() -> None:
    images = torch.rand(2, 3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    same = jittered(images, torch.full((2, 3, DRAWS), MIDDLE), 1.0)
    torch.testing.assert_close(same, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("amount", [0.5, 1.0])
def test_the_ends_of_the_draws_are_a_tenth_and_eleven_degrees(amount: float) -> None:
    start = where(dot(30, 20))
    for draw, sign in ((0.0, 1), (1.0, -1)):
        aside = where(jittered(dot(30, 20), torch.tensor([[MIDDLE, draw, MIDDLE]]), amount))
        assert aside == pytest.approx((start[0] + sign * amount * 4, start[1]), abs=0.05)
        down = where(jittered(dot(30, 20), torch.tensor([[MIDDLE, MIDDLE, draw]]), amount))
        assert down == pytest.approx((start[0], start[1] + sign * amount * 4), abs=0.05)
        turned = where(jittered(dot(30, 20), torch.tensor([[draw, MIDDLE, MIDDLE]]), amount))
        assert math.hypot(*turned) == pytest.approx(math.hypot(*start), abs=0.1)
        angle = math.atan2(turned[1], turned[0]) - math.atan2(start[1], start[0])
        assert abs(angle) == pytest.approx(amount * math.pi / 16, abs=0.02)


def test_every_image_by_itself_and_white_from_outside() -> None:
    images, draws = torch.zeros(1, 2, 1, 20, 20), torch.tensor([[[MIDDLE, 0.0, MIDDLE], [MIDDLE] * 3]])
    moved = jittered(images, draws, 1.0)
    assert float(moved[0, 0, 0, :, :2].min()) == pytest.approx(1)
    assert float(moved[0, 0, 0, :, 2:].max()) == pytest.approx(0, abs=1e-5)
    assert float(moved[0, 1].max()) == pytest.approx(0, abs=1e-5)


def changes(**by: float) -> Tensor:
    """(1, 6) draws that change nothing but what is named."""
    names = ("rotation", "across", "down", "scaling", "brightness", "mirror")
    return torch.tensor([[by.get(name, 0.0 if name == "mirror" else MIDDLE) for name in names]])


def test_each_change_of_training_images_is_what_its_name_says() -> None:
    """A blot in a wide image, found again by its centre in pixels: no change mixes the sides' proportions."""
    wide = torch.ones(1, 1, 40, 80)
    wide[..., 14:17, 59:62] = 0  # 20.5 to the right of the middle and 4.5 above it
    assert where(wide) == pytest.approx((20.5, -4.5))
    torch.testing.assert_close(augmented(wide, changes(), 1.0, mirror=True), wide, rtol=0, atol=1e-5)
    assert where(augmented(wide, changes(across=1.0), 1.0, False)) == pytest.approx((20.5 - 8, -4.5), abs=0.05)
    assert where(augmented(wide, changes(down=1.0), 1.0, False)) == pytest.approx((20.5, -4.5 - 4), abs=0.05)
    smaller = where(augmented(wide, changes(scaling=1.0), 1.0, False))
    assert smaller == pytest.approx((20.5 / 1.1, -4.5 / 1.1), abs=0.1)
    turned = where(augmented(wide, changes(rotation=1.0), 1.0, False))
    assert math.hypot(*turned) == pytest.approx(math.hypot(20.5, 4.5), abs=0.1)
    assert abs(math.atan2(turned[1], turned[0]) - math.atan2(-4.5, 20.5)) == pytest.approx(math.pi / 16, abs=0.02)
    mirrored = augmented(wide, changes(mirror=1.0), 0.0, mirror=True)
    assert torch.equal(mirrored, wide.flip(-1))
    assert torch.equal(augmented(wide, changes(mirror=1.0), 0.0, mirror=False), wide)
    grey = torch.full((1, 3, 8, 8), 0.5)
    for draw, level in ((0.0, 0.4), (1.0, 0.6)):
        torch.testing.assert_close(augmented(grey, changes(brightness=draw), 1.0, False), grey * level / 0.5)


def test_augmented_tasks_are_those_of_the_sampler_and_repeat_with_the_seed() -> None:
    pixels = torch.randint(0, 256, (12, 3, 9, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    store = ImageStore(pixels, torch.full((3,), 4), ("a", "b", "c"), "some")
    plain = EpisodeSampler(store, way=2, shots=2, queries=1)
    assert augmenting(plain, TaskConfig()) is plain
    sampler = augmenting(plain, TaskConfig(augment=0.5, mirror=True))
    first, again = (sampler.sample(2, torch.Generator().manual_seed(1)) for _ in range(2))
    same = plain.sample(2, torch.Generator().manual_seed(1))
    assert torch.equal(first.support_x, again.support_x)
    assert torch.equal(first.query_x, again.query_x)
    assert torch.equal(first.classes, same.classes)
    assert torch.equal(first.support_y, same.support_y)
    assert (first.support_x != same.support_x).flatten(2).any(2).all()
    assert (first.query_x != same.query_x).flatten(2).any(2).all()
    assert float(first.support_x.min()) >= 0
    assert float(first.support_x.max()) <= 1
    numbers = torch.rand(2, 4, AUGMENTING_DRAWS)
    assert augmented(same.support_x, numbers, 1.0, True).shape == same.support_x.shape
