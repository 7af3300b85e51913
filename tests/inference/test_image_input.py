"""Images in whatever people hold them, against the one tensor they must become."""

from __future__ import annotations

import io
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


def test_a_tensor_of_bfloat16_is_read_as_its_values() -> None:
    """Numpy has no such type."""
    levels = torch.tensor([[0.0, 0.25], [0.5, 1.0]])  # which bfloat16 holds exactly
    for given in (levels.bfloat16(), [levels.bfloat16()]):
        assert torch.equal(as_images(given, (1, 2, 2)), as_images(levels, (1, 2, 2)))


def test_every_form_of_colour_images_becomes_the_same_pixels(tmp_path: Path) -> None:
    two = pixels(2, 12, 12, 3)
    pictures = [Image.fromarray(image) for image in two]
    wanted = torch.from_numpy(two).permute(0, 3, 1, 2)
    forms: list[Any] = [two, two.transpose(0, 3, 1, 2), pictures, list(two), two.reshape(2, 12, 12, 3) / 255.0]
    for form in forms:
        assert torch.equal(as_images(form, COLOUR), wanted)
    for form in (two[0], two[0].transpose(2, 0, 1)):
        assert torch.equal(as_images(form, COLOUR), wanted[:1])


def test_files_in_every_form_are_read_as_the_list_of_their_paths(tmp_path: Path) -> None:
    """Arrays and columns of paths, contents, and open files, which can be read a second time."""
    two = pixels(2, 12, 12)
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, image in zip(paths, two, strict=True):
        Image.fromarray(image).save(path)
    names, contents = [str(path) for path in paths], [path.read_bytes() for path in paths]

    class Column:
        """A column of a table, as far as numpy is concerned."""

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.array(names, dtype=object)

    wanted = torch.from_numpy(two)[:, None]
    files = [io.BytesIO(content) for content in contents]
    forms: list[Any] = [
        np.array(names), np.array(names, dtype=object), np.array(names)[:, None], Column(), (name for name in names),
        contents, [bytearray(content) for content in contents], files, files, tuple(paths), [paths[0], files[1]],
    ]  # fmt: skip
    for form in forms:
        assert torch.equal(as_images(form, GREY), wanted), type(form)
    for single in (contents[0], files[0], names[0], np.array(names)[0]):
        assert torch.equal(as_images(single, GREY), wanted[:1]), type(single)
    with paths[0].open("rb") as opened:
        assert torch.equal(as_images(opened, GREY), wanted[:1])
    with paths[0].open(encoding="latin1") as text, pytest.raises(DataError, match="image 0: a file opened as text"):
        as_images(text, GREY)


@pytest.mark.parametrize("shape", [(1, 1, 20), (3, 8, 20), (5, 4, 4), (6, 20), (1, 20)])
def test_every_shape_arrives_whole(shape: tuple[int, ...]) -> None:
    """What has the network's shape already is not cropped, scaled or mixed, in any layout."""
    given = pixels(4, *shape)
    wanted = torch.from_numpy(given)
    forms: list[Any] = [given, given / 255, given.reshape(4, -1), list(given), torch.from_numpy(given)]
    forms += [given[:, 0]] if shape[0] == 1 else []
    forms += [given.transpose(0, 2, 3, 1)] if len(shape) == 3 else []
    for form in forms:
        assert torch.equal(as_images(form, shape), wanted)
    assert torch.equal(as_images(given[0], shape), wanted[:1])


def test_pictures_are_cropped_to_the_proportions_of_the_network() -> None:
    """Twice as wide as high, of a square: its upper and lower quarters go, and the sides stay."""
    square = np.full((16, 16), 255, dtype=np.uint8)
    square[4:12] = np.arange(1, 17) * 15
    wide = as_images(Image.fromarray(square), (1, 8, 16))
    assert torch.equal(wide[0, 0], torch.from_numpy(square[4:12].copy()))


@pytest.mark.parametrize(
    ("given", "shape", "message"),
    [
        (np.zeros((4, 100)), (6, 128), r"series are an array of shape \(4, 100\); it must be \(N, 6, 128\), or one of"),
        (np.zeros((4, 5, 9, 9)), (5, 8, 8), r"images are an array of shape \(4, 5, 9, 9\); it must be \(N, 5, 8, 8\)"),
        (["a.png"], (6, 128), r"a.png is a picture, and the network takes inputs of shape \(6, 128\); give an array"),
        (np.eye(12, dtype=np.uint8), (1, 12, 12), "values from 0 to 1, where 255 is white, so all would be nearly bl"),
        (Image.new("L", (12, 12), 3), (1, 12, 12), r"image 0: nearly black \(brightest value 3 of 255\); stretch"),
        (np.full((2, 20), 0.01), (1, 20), "values from 0.01 to 0.01, where 1 is white, so all would be nearly black"),
        (np.full((12, 12), 2000, np.uint16), (1, 12, 12), "whole numbers must be from 0 to 255"),
    ],
)
def test_what_would_lose_its_content_is_refused(given: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_images(given, shape)


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
    ("given", "message"),
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
def test_what_cannot_be_images_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        as_images(given, GREY)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png: not a picture"):
        as_images([tmp_path / "x.png"], GREY)
