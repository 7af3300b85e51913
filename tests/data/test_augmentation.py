"""Moved and turned drawings: by how much, which way, and what comes in from outside."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from torchreptile.data.augmentation import DRAWS, jittered

MIDDLE = 0.5  # of a draw: no change


def dot(x: int, y: int, size: int = 40) -> Tensor:
    """(1, 1, size, size) paper with a blot of 3 x 3 pixels of ink."""
    image = torch.ones(1, 1, size, size)
    image[..., y - 1 : y + 2, x - 1 : x + 2] = 0
    return image


def where(image: Tensor) -> tuple[float, float]:
    """The ink's centre, from the middle of the image, in pixels."""
    ink = 1 - image[0, 0]
    places = torch.arange(ink.shape[0]) - (ink.shape[0] - 1) / 2
    return float((ink.sum(0) * places).sum() / ink.sum()), float((ink.sum(1) * places).sum() / ink.sum())


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
