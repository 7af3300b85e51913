"""Images in whatever people hold them, against the one tensor they must become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from torchreptile.core.errors import DataError
from torchreptile.inference.image_input import as_images

GREY, COLOUR = (1, 12, 12), (3, 12, 12)


def pixels(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_every_form_of_a_grey_image_becomes_the_same_pixels(tmp_path: Path) -> None:
    one = pixels(12, 12)
    picture = Image.fromarray(one)
    picture.save(tmp_path / "a.png")
    wanted = torch.from_numpy(one)[None, None]
    forms: list[Any] = [
        one, one[None], one[None, None], one[..., None], one[None, ..., None], torch.from_numpy(one), one / 255,
        torch.from_numpy(one / 255).float(), one.astype(np.int64), one.reshape(1, -1),
        picture, [picture], tmp_path / "a.png", str(tmp_path / "a.png"), [tmp_path / "a.png"], [one],
        np.array([str(tmp_path / "a.png")], dtype=object),
    ]  # fmt: skip
    for form in forms:
        assert torch.equal(as_images(form, GREY), wanted), type(form)


def test_every_form_of_colour_images_becomes_the_same_pixels(tmp_path: Path) -> None:
    two = pixels(2, 12, 12, 3)
    pictures = [Image.fromarray(image) for image in two]
    wanted = torch.from_numpy(two).permute(0, 3, 1, 2)
    forms: list[Any] = [two, two.transpose(0, 3, 1, 2), pictures, list(two), two.reshape(2, 12, 12, 3) / 255.0]
    for form in forms:
        assert torch.equal(as_images(form, COLOUR), wanted)
    for form in (two[0], two[0].transpose(2, 0, 1)):
        assert torch.equal(as_images(form, COLOUR), wanted[:1])


def test_several_greys_are_not_taken_for_a_colour() -> None:
    three = pixels(3, 12, 12)
    assert torch.equal(as_images(three, GREY), torch.from_numpy(three)[:, None])
    assert as_images(three[None], GREY).shape == (1, *GREY)  # one colour image, made grey


def test_drawn_lines_are_scaled_as_omniglots(tmp_path: Path) -> None:
    """Of the published size, exactly so; larger and softer, black and white all the same; else smoothly."""
    shape, generator = (1, 28, 28), np.random.default_rng(0)
    drawing = Image.fromarray(np.where(generator.random((105, 105)) < 0.1, 0, 255).astype(np.uint8))
    drawing.convert("1").save(tmp_path / "a.png")
    expected = torch.from_numpy(np.array(drawing.resize((28, 28), Image.Resampling.NEAREST)))[None, None]
    for form in (drawing, drawing.convert("1"), np.asarray(drawing), tmp_path / "a.png"):
        assert torch.equal(as_images(form, shape, "lines"), expected)
    assert not torch.equal(as_images(drawing, shape), expected)
    large = Image.new("L", (400, 300), 230)
    ImageDraw.Draw(large).line([(120, 40), (280, 250)], fill=70, width=9)
    lines = as_images(large, shape, "lines")
    assert lines.unique().tolist() == [0, 255]
    assert 15 < int((lines == 0).sum()) < 60
    coloured = as_images(large.convert("RGB"), (3, 28, 28), "lines")
    assert torch.equal(coloured, lines.expand(-1, 3, -1, -1))
    dark = Image.eval(large, lambda level: 255 - level)
    assert torch.equal(as_images(dark, shape, "lines"), as_images(dark, shape))


def test_other_sizes_and_colours_are_brought_to_the_networks() -> None:
    flat = np.full((2, 30, 20), 200, dtype=np.uint8)
    assert torch.equal(as_images(flat, COLOUR), torch.full((2, *COLOUR), 200, dtype=torch.uint8))
    red = np.zeros((1, 40, 40, 3), dtype=np.uint8)
    red[..., 0] = 255
    assert as_images(red, GREY).unique().tolist() == [76]  # ITU-R 601's share of red
    half = np.zeros((10, 30), dtype=np.uint8)
    half[:, 10:20] = 255  # the central square
    assert as_images(half, GREY).float().mean() > 250


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "there are no images"),
        (np.zeros((0, 12, 12)), "there are no images"),
        (3, "images are a int"),
        ([3], "image 0|array of shape"),
        ([object()], "image|array"),
        (np.zeros((2, 2, 12, 12)), r"shape \(2, 2, 12, 12\)"),
        (np.zeros((1, 1, 1, 12, 12)), "shape"),
        (np.full((1, 12, 12), 1.5), "values from 1.5 to 1.5; floats must be from 0 to 1"),
        (np.full((1, 12, 12), np.nan), "values from nan"),
        (np.full((1, 12, 12), 300), "whole numbers must be from 0 to 255"),
        (np.zeros((1, 12, 12), dtype=complex), "complex"),
        (["no/such.png"], r"no/such.png: cannot be read \(No such file"),
        ([np.zeros((4, 12, 12), dtype=np.uint8)], "image 0 is 4 images"),
    ],
)
def test_what_cannot_be_images_is_refused(given: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        as_images(given, GREY)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png: not a picture"):
        as_images([tmp_path / "x.png"], GREY)
