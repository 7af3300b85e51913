"""Decoding of picture files to pixels, in parallel, for every data set that comes as image files.

Files on disk are untidy: photographs on their side, 16-bit scans, figures on a transparent background, truncated
downloads. A picture is either decoded to the pixels a person would see, or refused with the reason.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from torchreptile.core.config import Resize
from torchreptile.core.errors import DataError
from torchreptile.data.own_images.line_drawings import FIELD, black_and_white, scaled, thickened

# Raster formats that Pillow decodes by itself, without running code or another program, as EPS would.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".pbm", ".pgm", ".ppm")
MAX_PIXELS = 64_000_000  # of one picture, by its header; a decoded pixel takes up to 16 bytes
MAX_BYTES = 2**30  # of one picture file
NEARLY_BLACK = 16  # of 255: what is nowhere brighter has lost nearly everything it showed; 12 bits in 16 reach 15.9

Scaling = Resize | Literal["lines"]
"""A filter, or ``lines``: drawn lines are converted to black and white and then scaled as Omniglot was."""
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "lines": Image.Resampling.LANCZOS,  # for pictures without lines
}
# Exceptions that Pillow's readers raise for damaged files.
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, OverflowError, AttributeError,
    struct.error, zlib.error,
)  # fmt: skip
# EXIF orientation -> the operation that turns the picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """One image file to decode.

    Attributes:
        name: its name in messages: a path, or a member of an archive.
        read: returns the content of the file; called once, from any thread.
    """

    name: str
    read: Callable[[], bytes]


class PictureError(DataError):
    """A picture that cannot be decoded; the message does not name it."""


Size = int | tuple[int, int]
"""Height and width in pixels: one number for a square, or (height, width)."""


def decode(content: bytes, size: Size, channels: int, resize: Scaling, squash: bool = False) -> NDArray[np.uint8]:
    """Decode one image file to the pixels a person would see.

    The picture is turned upright by its EXIF orientation, placed on white where it is transparent, converted to 8 bits
    (16-bit greys and floats from 0 to 1 by scaling) and to grey or RGB, cropped to the largest area in its middle that
    has the proportions of ``size``, and scaled. A picture that has this size already is not resampled. Colour profiles
    are not applied.

    Args:
        content: content of a PNG, JPEG, WebP, BMP, GIF, TIFF or PPM file.
        size: of the result.
        channels: 1 for grey, 3 for red, green and blue.
        resize: filter, used only where the size changes.
        squash: scale the entire picture, whatever its proportions, instead of cropping it.

    Returns:
        (channels, height, width) uint8, 0 is black and 255 white.

    Raises:
        PictureError: the file is empty, damaged or of another format, animated, above ``MAX_PIXELS``, or has grey
            values that would all become nearly black.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (40, 30), "white").save(file, "PNG")
        >>> pixels = decode(file.getvalue(), size=28, channels=1, resize="lanczos")
        >>> pixels.shape, int(pixels.min())
        ((1, 28, 28), 255)
    """
    if not content:
        raise PictureError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return pixels_of(image, size, channels, resize, squash)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"not a picture, or damaged at its start; it must be one of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"it has more than {MAX_PIXELS:,} pixels; make it smaller") from error
    except _DAMAGE as error:
        raise PictureError(f"the file is damaged ({' '.join(str(error).split()) or type(error).__name__})") from error


def pixels_of(
    image: Image.Image, size: Size, channels: int, resize: Scaling, squash: bool = False
) -> NDArray[np.uint8]:
    """Convert a Pillow image to pixels, with the arguments and the result of :func:`decode`.

    Raises:
        PictureError: the image is animated, above ``MAX_PIXELS``, or has grey values outside the known ranges.
    """
    _check_header(image)
    image.load()
    shown = _upright(_eight_bits(image), image).convert("L" if channels == 1 else "RGB")
    height, width = _height_and_width(size)
    if shown.size != (width, height):
        box = None if squash else _central_part(*shown.size, width, height)
        drawn = _lines(shown, width, box) if resize == "lines" and height == width else None
        shown = shown.resize((width, height), _FILTERS[resize], box=box) if drawn is None else drawn
    pixels = np.asarray(shown)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decode_all(
    pictures: Sequence[Picture],
    size: Size,
    channels: int,
    resize: Resize,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    into: Tensor | NDArray[np.uint8] | None = None,
    squash: bool = False,
) -> tuple[Tensor, list[str]]:
    """Decode pictures, as many at a time as there are cores; only these files are in memory along with the result.

    Args:
        pictures: N pictures.
        size: of every result.
        channels: 1 for grey, 3 for red, green and blue.
        resize: filter, used only where the size changes.
        on_progress: called with the number of pictures done and N, from this thread.
        into: (N, channels, height, width) uint8 to write to, on the CPU; made if None.
        squash: scale the entire picture, whatever its proportions, instead of cropping it.

    Returns:
        The (N, channels, height, width) uint8 pixels, and ``name: problem`` for every picture that failed, in order;
        the pixels of those are undefined.

    Raises:
        DataError: ``into`` has another shape or dtype.
    """
    shape = (len(pictures), channels, *_height_and_width(size))
    given = torch.from_numpy(into) if isinstance(into, np.ndarray) else into
    images = torch.empty(shape, dtype=torch.uint8) if given is None else given
    if tuple(images.shape) != shape or images.dtype != torch.uint8:
        raise DataError(f"pixels for {shape} uint8 do not fit into {tuple(images.shape)} {images.dtype}")
    pixels = images.numpy()

    def work(index: int) -> str | None:
        try:
            pixels[index] = decode(pictures[index].read(), size, channels, resize, squash)
        except OSError as error:
            return f"{pictures[index].name}: cannot be read ({error.strerror or error})"
        except DataError as error:
            return f"{pictures[index].name}: {error}"
        return None

    wrong: list[str] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        # Pillow warns of odd metadata, which do not affect the pixels, and of pictures that are refused here anyway.
        warnings.simplefilter("ignore")
        try:
            for done, problem in enumerate(threads.map(work, range(len(pictures))), start=1):
                wrong += [problem] if problem else []
                on_progress(done, len(pictures))
        except BaseException:
            threads.shutdown(cancel_futures=True)  # without this, Ctrl-C would wait for the entire queue
            raise
    return images, wrong


def _check_header(image: Image.Image) -> None:
    """Refuse, before anything is decoded, a file that is too large or has more than one frame."""
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; make it smaller")
    # Cameras append previews to a photograph (MPO); the first picture is the photograph.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise PictureError(f"it is a {image.format} with more than one frame; save the frame you mean as a PNG")


def _upright(picture: Image.Image, source: Image.Image) -> Image.Image:
    """Turn ``picture`` upright by the EXIF orientation of ``source``; unreadable EXIF data are ignored."""
    try:
        orientation = source.getexif().get(ExifTags.Base.Orientation)
    except _DAMAGE:
        return picture
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _eight_bits(image: Image.Image) -> Image.Image:
    """Convert a loaded picture to mode L or RGB, on white where it is transparent."""
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_scaled(image))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _scaled(image: Image.Image) -> NDArray[np.uint8]:
    """Scale (H, W) grey values of more than 8 bits to 0 to 255; Pillow's own conversion would clip them."""
    values = np.asarray(image)
    top = 1.0 if image.mode == "F" else 65535.0
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        kind = "floats from 0 to 1" if image.mode == "F" else "integers from 0 to 65535"
        found = f"its grey values range from {values.min():g} to {values.max():g}"
        raise PictureError(f"{found}; {kind} can be read, or save it with 8 bits")
    transparent = image.info.get("transparency")
    unseen = transparent if isinstance(transparent, int) else -1  # the grey value that marks transparent pixels
    brightest = values.max(initial=0, where=values != unseen)
    if 0 < brightest <= NEARLY_BLACK / 255 * top:
        raise PictureError(
            f"its brightest grey is {brightest:g} of {top:g}, so it would be nearly black; stretch its greys to the "
            "full range (values of 8, 10 or 12 bits in a wider file?), or save it with 8 bits"
        )
    scaled = np.rint(values * (255.0 / top)).astype(np.uint8)
    scaled[values == unseen] = 255
    return scaled


def _lines(shown: Image.Image, side: int, box: tuple[float, float, float, float] | None) -> Image.Image | None:
    """Convert dark lines on light paper to black and white, scaled as Omniglot; None if there are no lines."""
    field = shown.convert("L").resize((FIELD, FIELD), Image.Resampling.LANCZOS, box=box)
    lines = black_and_white(np.asarray(field))
    if lines is not None and shown.size != (FIELD, FIELD):  # Omniglot's own files stay as they are
        lines = thickened(lines)
    return None if lines is None else Image.fromarray(scaled(lines, side)).convert(shown.mode)


def _height_and_width(size: Size) -> tuple[int, int]:
    """Return height and width, which are equal if ``size`` is one number."""
    return (size, size) if isinstance(size, int) else size


def _central_part(width: int, height: int, to_width: int, to_height: int) -> tuple[float, float, float, float]:
    """Return the largest area in the middle that has the proportions of the result: left, upper, right, lower."""
    wide = width * to_height >= height * to_width  # multiplied first, so that a square's sides stay whole numbers
    across, down = (height * to_width / to_height, height) if wide else (width, width * to_height / to_width)
    left, upper = (width - across) / 2, (height - down) / 2
    return left, upper, left + across, upper + down
