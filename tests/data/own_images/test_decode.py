"""Picture files to pixels: what a person would see, or the reason why not."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import encoded, noise
from torchreptile.core.errors import DataError
from torchreptile.data.own_images import decode as pictures
from torchreptile.data.own_images.decode import Picture, PictureError, decode, decode_all


def pixels_of(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.mark.parametrize("resize", ["nearest", "bicubic", "lanczos"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_the_right_size_keep_their_pixels(channels: int, resize: pictures.Resize) -> None:
    image = noise(0, 9, channels)
    assert np.array_equal(decode(encoded(image), 9, channels, resize), pixels_of(image))


@pytest.mark.parametrize("resize", ["nearest", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(30, 20), (20, 30), (21, 20)])
def test_others_are_cut_to_their_central_square_and_scaled(size: tuple[int, int], resize: pictures.Resize) -> None:
    image = noise(1, 30).crop((0, 0, *size))
    left, upper = (size[0] - 20) / 2, (size[1] - 20) / 2
    wanted = image.resize((8, 8), Image.Resampling[resize.upper()], box=(left, upper, left + 20, upper + 20))
    assert np.array_equal(decode(encoded(image), 8, 3, resize), pixels_of(wanted))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation: int, kind: str) -> None:
    """A dark bar lies where the orientation says that the top of the scene was stored."""
    stored_top = {1: "top", 2: "top", 3: "bottom", 4: "bottom", 5: "left", 6: "left", 7: "right", 8: "right"}
    bars = {"top": (0, 0, 32, 8), "bottom": (0, 24, 32, 32), "left": (0, 0, 8, 32), "right": (24, 0, 32, 32)}
    image = Image.new("RGB", (32, 32), "white")
    image.paste("black", bars[stored_top[orientation]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = decode(encoded(image, kind, exif=exif), 32, 1, "nearest")[0]
    assert shown[:6].max() < 60
    assert shown[10:].min() > 200


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 257, 256 * 128], [65535, 40000, 129]], dtype=np.uint16)[[0, 1, 1]]
    shown = decode(encoded(Image.fromarray(values), kind), 3, 1, "nearest")[0]
    assert np.array_equal(shown, np.rint(values / 257).astype(np.uint8))


def test_floats_from_0_to_1_and_whole_numbers_in_32_bits() -> None:
    floats = np.array([[0, 0.5], [0.25, 1]], dtype=np.float32)
    assert decode(encoded(Image.fromarray(floats), "TIFF"), 2, 1, "nearest").ravel().tolist() == [0, 128, 64, 255]
    integers = (floats * 65535).astype(np.int32)
    assert decode(encoded(Image.fromarray(integers), "TIFF"), 2, 1, "nearest").ravel().tolist() == [0, 127, 64, 255]


def transparent(mode: str) -> bytes:
    """Black with alpha 0 on the left, black with alpha 255 on the right."""
    alpha = Image.new("L", (2, 2), 255)
    alpha.paste(0, (0, 0, 1, 2))
    if mode in ("LA", "RGBA"):
        image = Image.new(mode, (2, 2), 0)
        image.putalpha(alpha)
        return encoded(image)
    if mode == "P":
        image = alpha.point(lambda value: value // 255).convert("P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        return encoded(image, transparency=0)
    image = alpha.point(lambda value: value // 255 * 7).convert(mode)  # a key colour stands for nothing
    black = decode(encoded(image), 2, 1, "nearest")
    assert black.max() < 8
    return encoded(image, transparency=(0, 0, 0) if mode == "RGB" else 0)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_parts_are_white(mode: str, channels: int) -> None:
    if mode == "I;16":
        content = encoded(Image.fromarray(np.array([[5, 0], [5, 0]], dtype=np.uint16)), transparency=5)
    else:
        content = transparent(mode)
    shown = decode(content, 2, channels, "nearest")
    assert (shown[:, :, 0] == 255).all()
    assert (shown[:, :, 1] < 8).all()


@pytest.mark.parametrize(("mode", "kind"), [("1", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("CMYK", "TIFF")])
def test_other_modes_are_brought_to_grey_and_colour(mode: str, kind: str) -> None:
    image = Image.new("RGB", (16, 16), "white")
    image.paste("black", (0, 0, 8, 16))
    content = encoded(image.convert(mode), kind)
    for channels in (1, 3):
        shown = decode(content, 16, channels, "lanczos")
        assert shown.shape == (channels, 16, 16)
        assert shown[:, :, :7].max() < 40
        assert shown[:, :, 9:].min() > 215


def bomb(width: int, height: int) -> bytes:
    """A PNG's header alone: what it claims is refused before anything is decoded."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def animated(kind: str) -> bytes:
    return encoded(noise(0), kind, save_all=True, append_images=[noise(1)])


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "^the file is empty$"),
    "text": (lambda: b"<html>not found</html>", "^not a picture, or damaged at its start; it must be one of PNG, JPEG"),
    "half a signature": (lambda: encoded(noise(0))[:5], "^not a picture, or damaged"),
    "half a PNG": (lambda: encoded(noise(0, 64))[:4000], "^the file is damaged \\(image file is truncated"),
    "half a JPEG": (lambda: encoded(noise(0, 64), "JPEG")[:1500], "^the file is damaged \\("),
    "half a TIFF": (lambda: encoded(noise(0, 64), "TIFF")[:1500], "^(the file is damaged|not a picture)"),
    "changed PNG": (lambda: encoded(noise(0, 64)).replace(b"IDAT", b"IDAX"), "^not a picture, or damaged"),
    "EPS": (lambda: encoded(noise(0), "EPS"), "^not a picture"),
    "PDF": (lambda: encoded(noise(0), "PDF"), "^not a picture"),
    "GIF animation": (lambda: animated("GIF"), "^it is a GIF with more than one frame; save the frame you mean as a P"),
    "APNG": (lambda: animated("PNG"), "^it is a PNG with more than one frame"),
    "WebP animation": (lambda: animated("WEBP"), "^it is a WEBP with more than one frame"),
    "TIFF pages": (lambda: animated("TIFF"), "^it is a TIFF with more than one frame"),
    "above our limit": (lambda: bomb(8001, 8000), "^it has 8001 x 8000 pixels, more than 64,000,000; make it smaller$"),
    "above Pillow's": (lambda: bomb(50000, 50000), "^it has more than 64,000,000 pixels; make it smaller$"),
    "large floats": (
        lambda: encoded(Image.new("F", (3, 3), 200.0), "TIFF"),
        "^its grey values range from 200 to 200; floats from 0 to 1 can be read, or save it with 8 bits$",
    ),
    "no number": (
        lambda: encoded(Image.new("F", (3, 3), float("nan")), "TIFF"),
        "^its grey values range from nan to nan",
    ),
    "12 bits in 16": (
        lambda: encoded(Image.fromarray(np.full((3, 3), 4095, np.uint16))),
        "^its brightest grey is 4095 of 65535, so it would be nearly black; stretch its greys to the full range",
    ),
    "8 bits in 32": (lambda: encoded(Image.new("I", (3, 3), 255), "TIFF"), "^its brightest grey is 255 of 65535, so"),
    "small floats": (lambda: encoded(Image.new("F", (3, 3), 0.01), "TIFF"), "^its brightest grey is 0.01 of 1, so it"),
    "negative": (
        lambda: encoded(Image.new("I", (3, 3), -5), "TIFF"),
        "^its grey values range from -5 to -5; integers from 0 to 65535 can be read",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_refused_with_the_reason(what: str) -> None:
    make, message = BAD[what]
    with pytest.raises(PictureError, match=message):
        decode(make(), 8, 3, "bicubic")


def test_many_are_decoded_in_order_and_every_bad_one_is_named() -> None:
    images = {f"p{i}": noise(i) for i in range(30)}

    def gone() -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    given = [Picture(name, lambda image=image: encoded(image)) for name, image in images.items()]
    given[4:4] = [Picture("gone.png", gone), Picture("empty.png", lambda: b"")]
    given.append(Picture("huge.png", lambda: bomb(10_000, 9_000)))  # Pillow would only warn of it
    progress: list[tuple[int, int]] = []
    into = torch.zeros(33, 3, 12, 12, dtype=torch.uint8)
    decoded, wrong = decode_all(given, 12, 3, "bicubic", lambda done, total: progress.append((done, total)), into)
    assert decoded is into
    assert progress == [(n, 33) for n in range(1, 34)]
    good = [n for n in range(33) if n not in (4, 5, 32)]
    assert np.array_equal(decoded[good].numpy(), np.stack([pixels_of(image) for image in images.values()]))
    assert wrong == [
        "gone.png: cannot be read (No such file or directory)",
        "empty.png: the file is empty",
        "huge.png: it has 10000 x 9000 pixels, more than 64,000,000; make it smaller",
    ]


def test_no_pictures_and_a_wrong_place_for_them() -> None:
    assert decode_all([], 12, 3, "bicubic")[0].shape == (0, 3, 12, 12)
    with pytest.raises(
        DataError, match=r"pixels for \(1, 3, 12, 12\) uint8 do not fit into \(2, 3, 12, 12\) torch.uint8"
    ):
        decode_all([Picture("p", lambda: b"")], 12, 3, "bicubic", into=torch.zeros(2, 3, 12, 12, dtype=torch.uint8))
