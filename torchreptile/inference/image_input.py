"""Images in any common form (paths, PIL images, arrays, tensors) as the tensor that a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torchreptile.core.config import Config
from torchreptile.core.errors import DataError
from torchreptile.data.own_images.decode import PictureError, Scaling, decode, pixels_of

GREY, COLOUR = 1, 3  # channels


def as_images(given: Any, shape: tuple[int, int, int], resize: Scaling = "lanczos") -> Tensor:
    """Convert one image or many to (N, C, H, W) uint8 of the network's size; 0 is black, 255 is white.

    Args:
        given: a path, a PIL image, or a sequence of them, which may be mixed; or an array or tensor, uint8 from 0 to
            255 or floats from 0 to 1, of shape (N, C, H, W), (N, H, W, C), (N, H, W) for grey images, the shape of one
            such image, or (N, C * H * W) as in scikit-learn.
        shape: (C, H, W) of the network, H = W. Images of another size are cropped to their central square and resized;
            grey and colour images are converted into one another.
        resize: the filter; ``lines`` for weights trained on line drawings.

    Raises:
        DataError: there are no images, a file cannot be read, or an array has another shape, type or range.

    Example:
        >>> as_images(np.zeros((5, 28, 28)), (1, 28, 28)).shape
        torch.Size([5, 1, 28, 28])
    """
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    if isinstance(given, np.ndarray) and given.dtype != object:
        return _from_array(given, shape, resize)
    single = isinstance(given, str | Path | Image.Image)
    if not single and not isinstance(given, Sequence | np.ndarray):
        raise DataError(f"images are a {type(given).__name__}; give paths, PIL images, an array or a tensor")
    images = [given] if single else list(given)
    if not images:
        raise DataError("there are no images")
    return torch.cat([_one(image, number, shape, resize) for number, image in enumerate(images)])


def as_floats(images: Tensor, config: Config, device: torch.device) -> Tensor:
    """Convert (N, C, H, W) uint8 to one task's (1, N, C, H, W) floats from 0 to 1, inverted if the training's were."""
    images = images.to(device)
    return (255 - images if config.task.inverted else images).to(torch.float32).div_(255)[None]


def _one(image: Any, number: int, shape: tuple[int, int, int], resize: Scaling) -> Tensor:
    """(1, C, H, W) uint8 of one element of a sequence."""
    channels, side, _ = shape
    name = str(image) if isinstance(image, str | Path) else f"image {number}"
    try:
        if isinstance(image, str | Path):
            return _tensor(decode(Path(image).read_bytes(), side, channels, resize))
        if isinstance(image, Image.Image):
            return _tensor(pixels_of(image, side, channels, resize))
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
    except PictureError as error:
        raise DataError(f"{name}: {error}") from error
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise DataError(
            f"{name} is a {type(image).__name__}; give a path, a PIL image, an array or a tensor"
        ) from error
    found = _from_array(array, shape, resize)
    if len(found) != 1:
        raise DataError(f"{name} is {len(found)} images, of shape {array.shape}")
    return found


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """(1, C, H, W) of (C, H, W) pixels."""
    return torch.from_numpy(np.array(pixels))[None]


def _from_array(array: NDArray[Any], shape: tuple[int, int, int], resize: Scaling) -> Tensor:
    """(N, C, H, W) uint8 of the given shape."""
    images = _levels(_channels_last(array, shape))
    channels, side, _ = shape
    if images.shape[1:] == (side, side, channels):
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    pictures = (Image.fromarray(image[..., 0] if image.shape[-1] == GREY else image) for image in images)
    return torch.cat([_tensor(pixels_of(picture, side, channels, resize)) for picture in pictures])


def _channels_last(array: NDArray[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """(N, H, W, 1 or 3) of an array in any shape that :func:`as_images` takes."""
    channels, height, width = shape
    if array.size == 0:
        raise DataError(f"there are no images in an array of shape {array.shape}")
    if array.ndim == 2 and array.shape != (height, width) and array.shape[1] == channels * height * width:
        array = array.reshape(-1, channels, height, width)
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


def _levels(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The array as uint8 from 0 to 255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
        raise DataError(f"images are an array of {array.dtype}; it must be uint8, or floats from 0 to 1")
    low, high = array.min(), array.max()
    kind, top = ("whole numbers", 255) if np.issubdtype(array.dtype, np.integer) else ("floats", 1)
    if not (low >= 0 and high <= top):  # NaN too
        raise DataError(f"images have values from {low:g} to {high:g}; {kind} must be from 0 to {top}")
    return np.rint(array * (255 / top)).astype(np.uint8)
