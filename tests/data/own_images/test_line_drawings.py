"""Lines that are thin, and what remains of them at 28 x 28."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from torchreptile.data.own_images.decode import decode
from torchreptile.data.own_images.line_drawings import FIELD, black_and_white, line_width, scaled, thickened


def cross(size: int, width: int, left: int = 0) -> Image.Image:
    image = Image.new("L", (size, size), 255)
    pen = ImageDraw.Draw(image)
    pen.line([(size // 2 + left, size // 5), (size // 2 + left, 4 * size // 5)], fill=0, width=width)
    pen.line([(size // 5, size // 2 + left), (4 * size // 5, size // 2 + left)], fill=0, width=width)
    return image


def read(image: Image.Image) -> NDArray[np.bool_]:
    file = io.BytesIO()
    image.save(file, "PNG")
    return np.asarray(decode(file.getvalue(), 28, 1, "lines"))[0] == 0


@pytest.mark.parametrize("left", range(8))
@pytest.mark.parametrize(("size", "width"), [(200, 2), (200, 4), (200, 7), (1000, 12), (60, 1)])
def test_no_line_is_lost_or_broken_wherever_it_lies(size: int, width: int, left: int) -> None:
    """Both strokes of a cross reach over half of the 28 pixels, without a gap."""
    ink = read(cross(size, width, left))
    rows, columns = ink.any(1), ink.any(0)
    assert rows[8:20].all()
    assert columns[8:20].all()
    assert ink.sum(1).max() >= 14
    assert ink.sum(0).max() >= 14


def test_a_drawing_of_the_published_size_is_left_alone() -> None:
    image = cross(FIELD, 2)
    lines = black_and_white(np.asarray(image))
    assert lines is not None
    assert np.array_equal(read(image), scaled(lines, 28) == 0)


def test_thick_lines_stay_as_they_are() -> None:
    lines = np.asarray(cross(FIELD, 6))
    assert np.array_equal(thickened(lines), lines)
    thin = np.asarray(cross(FIELD, 1))
    assert 3.5 <= line_width(thickened(thin) == 0) <= 5.5
