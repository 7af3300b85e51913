"""Strokes and picture files against the pixels that the network must get."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.pictures import encoded, noise
from torchreptile.core.errors import DataError
from torchreptile.inference.demo.rasterize import MIDDLE, pixels_of_picture, pixels_of_strokes, placed

SHAPE = (1, 28, 28)
CROSS = [np.array([[0.2, 0.2], [0.8, 0.8]]), np.array([[0.8, 0.2], [0.2, 0.8]])]


def extent(pixels: np.ndarray) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero(pixels[0] == 0)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def test_ink_is_black_on_white_one_pixel_wide_and_without_holes() -> None:
    pixels = pixels_of_strokes([np.array([[0.1, 0.5], [0.9, 0.5]])], SHAPE)
    assert pixels.shape == SHAPE
    assert set(np.unique(pixels)) == {0, 255}
    left, top, right, bottom = extent(pixels)
    assert bottom - top <= 1
    assert ((pixels[0] == 0).any(0)[left : right + 1]).all()
    assert 16 <= right - left + 1 <= 20


def test_size_and_place_on_the_paper_do_not_matter() -> None:
    there = pixels_of_strokes(CROSS, SHAPE)
    for scale, shift in ((0.3, 0.02), (1.5, -0.2)):
        moved = pixels_of_strokes([stroke * scale + shift for stroke in CROSS], SHAPE)
        assert (np.array(extent(moved)) == np.array(extent(there))).all() or np.abs(
            np.array(extent(moved)) - np.array(extent(there))
        ).max() <= 1
    middle = placed(np.concatenate(CROSS)).mean(0)
    np.testing.assert_allclose(middle, MIDDLE)


def test_a_dot_stays_a_dot() -> None:
    pixels = pixels_of_strokes([np.array([[0.9, 0.1]])], SHAPE)
    assert 1 <= (pixels == 0).sum() <= 4


def test_other_networks_get_their_own_shape() -> None:
    pixels = pixels_of_strokes(CROSS, (3, 84, 84))
    assert pixels.shape == (3, 84, 84)
    assert (pixels[0] == pixels[2]).all()


def test_nothing_on_the_paper_is_refused() -> None:
    with pytest.raises(DataError, match="the drawing is empty"):
        pixels_of_strokes([], SHAPE)


def test_a_scan_becomes_lines_of_black_on_white() -> None:
    """Grey paper, a pen of six pixels, edges that are neither black nor white."""
    scan = Image.new("L", (420, 420), 220)
    ImageDraw.Draw(scan).line([(80, 80), (340, 340)], fill=60, width=12)
    pixels = pixels_of_picture(encoded(scan.resize((315, 315), Image.Resampling.BICUBIC)), SHAPE, by_hand=True)
    assert set(np.unique(pixels)) == {0, 255}
    assert 15 <= (pixels == 0).sum() <= 45
    assert pixels[0, 0, 0] == 255


def test_a_drawing_of_the_published_size_is_scaled_as_in_training() -> None:
    drawing = Image.fromarray(np.where(np.random.default_rng(0).random((105, 105)) < 0.1, 0, 255).astype(np.uint8))
    expected = np.asarray(drawing.resize((28, 28), Image.Resampling.NEAREST))
    assert (pixels_of_picture(encoded(drawing), SHAPE, by_hand=True)[0] == expected).all()


def test_a_photograph_for_a_network_of_photographs_keeps_its_colours() -> None:
    pixels = pixels_of_picture(encoded(noise(1, 84)), (3, 84, 84), by_hand=False)
    assert (pixels == np.asarray(noise(1, 84)).transpose(2, 0, 1)).all()


def test_what_is_no_picture_of_a_drawing_is_refused() -> None:
    for content, message in (
        (b"", "the file is empty"),
        (b"GIF89a nonsense", "picture|damaged"),
        (encoded(Image.new("L", (50, 50), 255)), "no dark lines"),
        (encoded(Image.new("1", (9000, 9000))), "9000 x 9000; at most 4 megapixels"),
    ):
        with pytest.raises(DataError, match=message):
            pixels_of_picture(content, SHAPE, by_hand=True)
