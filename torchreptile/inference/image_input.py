"""Images in any common form (paths, files, PIL images, arrays, tensors) as the tensor that a network takes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torchreptile.core.config import Config
from torchreptile.core.errors import DataError
from torchreptile.core.files import read_regular
from torchreptile.data.own_images.decode import MAX_BYTES, NEARLY_BLACK, PictureError, Scaling, decode, pixels_of
from torchreptile.inference.array_input import from_array, takes_pictures


@runtime_checkable
class _File(Protocol):
    """An open file, whatever its class."""

    def read(self) -> Any: ...
    def seek(self, offset: int) -> Any: ...


@runtime_checkable
class _ArrayLike(Protocol):
    """What numpy can convert, such as a column of a table."""

    def __array__(self) -> NDArray[Any]: ...


def as_images(given: Any, shape: tuple[int, ...], resize: Scaling = "lanczos") -> Tensor:
    """Convert one image or many to (N, C, H, W) uint8 of the network's size; 0 is black, 255 is white.

    Args:
        given: a path, the content of a picture file as bytes, a file opened for reading bytes, a PIL image, or several
            of them in a sequence, generator, array or column of a table, which may be mixed; or an array or tensor,
            uint8 from 0 to 255 or floats from 0 to 1, of shape (N, C, H, W), (N, H, W, C), (N, H, W) for grey images,
            the shape of one such image, or (N, C * H * W) as in scikit-learn. Series are arrays (N, C, L), (N, L) for
            one channel, or one such series.
        shape: (C, H, W) of the network, or (C, L) of its series. Pictures of another size are cropped to the network's
            proportions and resized; grey and colour are converted into one another. Series, and images with other than
            1 or 3 channels, must have the network's shape.
        resize: the filter; ``lines`` for weights trained on line drawings.

    Raises:
        DataError: there are no images, a file cannot be read, or an array has another shape, type or range.

    Example:
        >>> as_images(np.zeros((5, 28, 28)), (1, 28, 28)).shape
        torch.Size([5, 1, 28, 28])
        >>> as_images(np.zeros((5, 6, 128)), (6, 128)).shape
        torch.Size([5, 6, 128])
    """
    if isinstance(given, Tensor):
        given = _of_tensor(given)
    if _is_picture(given):
        return _one(given, 0, shape, resize)
    if isinstance(given, Iterator):
        given = list(given)
    if isinstance(given, _ArrayLike):
        given = np.asarray(given)
        if given.dtype.kind not in "OUT":
            return from_array(given, shape, resize)
        given = given.reshape(-1).tolist() if given.ndim <= 1 or given.size == len(given) else list(given)
    if not isinstance(given, Sequence):
        raise DataError(f"images are a {type(given).__name__}; give paths, files, PIL images, an array or a tensor")
    if not given:
        raise DataError("there are no images")
    return torch.cat([_one(image, number, shape, resize) for number, image in enumerate(given)])


def as_floats(images: Tensor, config: Config, device: torch.device) -> Tensor:
    """Convert (N, C, H, W) uint8 to one task's (1, N, C, H, W) floats from 0 to 1, inverted if the training's were."""
    images = images.to(device)
    return (255 - images if config.task.inverted else images).to(torch.float32).div_(255)[None]


def _is_picture(given: Any) -> bool:
    """Return whether this is one picture: a path, the content of a file, an open file or a PIL image."""
    return isinstance(given, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | _File)


def _of_tensor(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array; bfloat16, which numpy does not have, becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _one(image: Any, number: int, shape: tuple[int, ...], resize: Scaling) -> Tensor:
    """Return (1, *shape) uint8 of one element of a sequence."""
    name = os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"
    if _is_picture(image):
        if not takes_pictures(shape):
            raise DataError(f"{name} is a picture, and the network takes inputs of shape {shape}; give an array")
        try:
            return _of_picture(image, (shape[1], shape[2]), shape[0], resize)
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror or error})") from error
        except (PictureError, ValueError) as error:  # ValueError: a name with a NUL, or a closed file
            raise DataError(f"{name}: {error}") from error
    if isinstance(image, Tensor):
        image = _of_tensor(image)
    try:
        array = np.asarray(image)
    except ValueError as error:
        raise DataError(
            f"{name} is a {type(image).__name__}; give a path, a file, a PIL image, an array or a tensor"
        ) from error
    found = from_array(array, shape, resize)
    if len(found) != 1:
        raise DataError(f"{name} is {len(found)} images, of shape {array.shape}")
    return found


def _of_picture(picture: Any, size: tuple[int, int], channels: int, resize: Scaling) -> Tensor:
    """Return (1, C, H, W) uint8 of a path, the content of a file, an open file or a PIL image.

    Raises:
        OSError: the file cannot be read.
        PictureError: it cannot be decoded.
    """
    if isinstance(picture, Image.Image):
        return _seen(pixels_of(picture, size, channels, resize))
    if isinstance(picture, str | os.PathLike):
        content = read_regular(Path(picture), MAX_BYTES)
    elif isinstance(picture, _File):
        picture.seek(0)  # so that the same file can be given to fit and to predict
        content = picture.read()
        if isinstance(picture, io.TextIOBase) or not isinstance(content, bytes):
            raise PictureError("a file opened as text; open it with mode 'rb'")
    else:
        content = bytes(picture)
    return _seen(decode(content, size, channels, resize))


def _seen(pixels: NDArray[np.uint8]) -> Tensor:
    """Return (1, C, H, W) of the pixels of a picture, which must show something unless it is all black."""
    brightest = int(pixels.max())
    if 0 < brightest < NEARLY_BLACK:
        raise PictureError(f"nearly black (brightest value {brightest} of 255); stretch its values to the full range")
    return torch.from_numpy(np.array(pixels))[None]
