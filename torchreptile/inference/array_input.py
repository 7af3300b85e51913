"""Arrays of pixels or points in any common layout as the uint8 tensor that a network takes."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torchreptile.core.errors import DataError
from torchreptile.data.own_images.decode import NEARLY_BLACK, Scaling, pixels_of

GREY, COLOUR = 1, 3  # channels

Array = NDArray[np.generic]


def from_array(array: Array, shape: tuple[int, ...], resize: Scaling) -> Tensor:
    """Convert an array to (N, *shape) uint8; 0 is black, 255 is white.

    Args:
        array: uint8 from 0 to 255 or floats from 0 to 1, in any layout that
            :func:`torchreptile.inference.image_input.as_images` takes.
        shape: (C, H, W) or (C, L) of the network.
        resize: the filter for images of another size.

    Raises:
        DataError: the array has another shape, type or range, or would be nearly black.
    """
    if array.size == 0:
        raise DataError(f"there are no images in an array of shape {array.shape}")
    exact = _exact(array, shape)
    if exact is not None:
        return torch.from_numpy(np.ascontiguousarray(_levels(exact)))
    if not takes_pictures(shape):
        form = "series" if len(shape) == 2 else "images"
        raise DataError(
            f"{form} are an array of shape {array.shape}; it must be {_layout(('N', *shape))}, or "
            f"one of {_layout(shape)}"
        )
    images = _levels(_channels_last(array, shape))
    pictures = (Image.fromarray(image[..., 0] if image.shape[-1] == GREY else image) for image in images)
    made = [np.array(pixels_of(picture, (shape[1], shape[2]), shape[0], resize)) for picture in pictures]
    return torch.from_numpy(np.stack(made))


def takes_pictures(shape: tuple[int, ...]) -> bool:
    """Return whether inputs of ``shape`` can be pictures: (1, H, W) or (3, H, W)."""
    return len(shape) == 3 and shape[0] in (GREY, COLOUR)


def _layout(sizes: tuple[int | str, ...]) -> str:
    """Return sizes as text, such as ``(N, 6, 128)``."""
    return f"({', '.join(map(str, sizes))})"


def _exact(array: Array, shape: tuple[int, ...]) -> Array | None:
    """Return (N, *shape) of an array that needs no other size and no other channels; None if it does."""
    channels, sides = shape[0], shape[1:]
    layouts = [shape, *([sides] if channels == GREY else []), *([(*sides, channels)] if len(sides) == 2 else [])]
    layouts.append((math.prod(shape),))
    for layout in layouts:
        if array.shape == layout:
            array = array[None]
        if array.shape[1:] != layout:
            continue
        last = len(layout) == 3 and layout != shape
        return array.transpose(0, 3, 1, 2) if last else array.reshape(-1, *shape)
    return None


def _channels_last(array: Array, shape: tuple[int, ...]) -> Array:
    """Return (N, H, W, 1 or 3) of an array of pictures of another size or with other channels."""
    channels = shape[0]
    if array.ndim == 2:
        array = array[None, :, :, None]
    elif array.ndim == 3:
        is_colour = array.shape[2] == COLOUR or (channels == COLOUR and array.shape[0] == COLOUR)
        array = array[None] if is_colour or array.shape[0] == GREY or array.shape[2] == GREY else array[..., None]
    if array.ndim == 4 and array.shape[3] not in (GREY, COLOUR) and array.shape[1] in (GREY, COLOUR):
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] not in (GREY, COLOUR):
        raise DataError(
            f"images are an array of shape {array.shape}; it must be (N, C, H, W), (N, H, W, C) or (N, H, W), "
            "with 1 or 3 channels"
        )
    return array


def _levels(array: Array) -> NDArray[np.uint8]:
    """Return the array as uint8 from 0 to 255."""
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise DataError(f"images are an array of {array.dtype}; it must be uint8, or floats from 0 to 1")
    numbers: NDArray[np.float64] = array  # type: ignore[assignment]
    low, high = numbers.min(), numbers.max()
    kind, top = ("whole numbers", 255) if np.issubdtype(array.dtype, np.integer) else ("floats", 1)
    if not (low >= 0 and high <= top):  # NaN too
        raise DataError(f"images have values from {low:g} to {high:g}; {kind} must be from 0 to {top}")
    if 0 < high * (255 / top) < NEARLY_BLACK:
        raise DataError(
            f"images have values from {low:g} to {high:g}, where {top} is white, so all would be nearly black; scale "
            f"{kind} to the full range from 0 to {top}"
        )
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    return np.rint(numbers * (255 / top)).astype(np.uint8)
