"""Requests of the demo's page, validated field by field: JSON becomes a :class:`Question` or a one-line error."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchreptile.core.errors import DataError
from torchreptile.inference.demo.rasterize import Strokes, pixels_of_strokes

FEWEST_CLASSES, MOST_CLASSES = 2, 20
MOST_IMAGES = 200  # in all classes together
MOST_STEPS = 200
MOST_STROKES, MOST_POINTS = 200, 5000  # of one drawing
MOST_POINTS_IN_ALL = 40_000  # a long drawing has about 200 points
MOST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Question:
    """A support set and a query.

    Attributes:
        classes: for each class its images, (C, H, W) uint8.
        query: (C, H, W) uint8 image to classify, or None.
        steps: inner steps.
    """

    classes: list[list[NDArray[np.uint8]]]
    query: NDArray[np.uint8] | None
    steps: int


def question(body: bytes, shape: tuple[int, int, int]) -> Question:
    """Parse ``{"classes": [[image, ...], ...], "query": image or null, "steps": n}``.

    An image is ``{"strokes": [[x, y, x, y, ...], ...]}``, from 0 to 1 across the paper, or ``{"pixels": base64}`` of
    C * H * W bytes.

    Args:
        body: the JSON.
        shape: (C, H, W) of the network's images.

    Raises:
        DataError: the JSON has another form, or exceeds a limit.
    """
    message = _fields(_json(body), "the message", {"classes", "query", "steps"})
    classes = _list(message["classes"], "classes")
    if not FEWEST_CLASSES <= len(classes) <= MOST_CLASSES:
        raise DataError(
            f"there are {len(classes)} classes with drawings; {FEWEST_CLASSES} to {MOST_CLASSES} are allowed"
        )
    images = [_list(given, f"class {number}") for number, given in enumerate(classes, start=1)]
    for number, given in enumerate(images, start=1):
        if not given:
            raise DataError(f"class {number} has no drawing; every class needs one")
    if (count := sum(map(len, images))) > MOST_IMAGES:
        raise DataError(f"there are {count} drawings in all classes; at most {MOST_IMAGES} are allowed")
    if (count := sum(_numbers(one) for given in images for one in given) // 2) > MOST_POINTS_IN_ALL:
        raise DataError(f"there are {count:,} points in all drawings; at most {MOST_POINTS_IN_ALL:,} are allowed")
    return Question(
        [
            [image(one, f"drawing {index} of class {number}", shape) for index, one in enumerate(given, start=1)]
            for number, given in enumerate(images, start=1)
        ],
        None if message["query"] is None else image(message["query"], "the new drawing", shape),
        whole_number(message["steps"], "steps", 1, MOST_STEPS),
    )


def image(given: Any, name: str, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Parse an image in either form.

    Args:
        given: the JSON value.
        name: what errors call it.
        shape: (C, H, W) of the result, uint8.

    Raises:
        DataError: the value has neither form, or exceeds a limit.
    """
    if not isinstance(given, dict) or given.keys() not in ({"strokes"}, {"pixels"}):
        raise DataError(f'{name} must be {{"strokes": [...]}} or {{"pixels": "..."}}')
    if "strokes" in given:
        return pixels_of_strokes(_strokes(given["strokes"], name), shape)
    size = int(np.prod(shape))
    try:
        content = base64.b64decode(given["pixels"], validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise DataError(f"{name}: its pixels are not base64") from error
    if len(content) != size:
        raise DataError(f"{name} has {len(content)} bytes of pixels; this network's images have {size}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def text_of(pixels: NDArray[np.uint8]) -> dict[str, str]:
    """Return an image as JSON with its pixels, which :func:`image` parses."""
    return {"pixels": base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode("ascii")}


def whole_number(given: Any, name: str, least: int, most: int) -> int:
    """Return a whole number from ``least`` to ``most``.

    Raises:
        DataError: the value is another type or out of range; the message calls it ``name``.
    """
    if type(given) is not int or not least <= given <= most:
        raise DataError(f"{name} is {_shown(given)}; it must be a whole number from {least} to {most}")
    return given


def _numbers(given: Any) -> int:
    """The count of numbers in the strokes of an image that is not validated yet."""
    strokes = given.get("strokes") if isinstance(given, dict) else None
    return sum(len(stroke) for stroke in strokes if isinstance(stroke, list)) if isinstance(strokes, list) else 0


def _strokes(given: Any, name: str) -> Strokes:
    """The validated strokes of an image."""
    strokes = _list(given, f"{name}: its strokes")
    if len(strokes) > MOST_STROKES:
        raise DataError(f"{name} has {len(strokes)} strokes; at most {MOST_STROKES} are allowed")
    found = []
    for stroke in strokes:
        numbers = _list(stroke, f"{name}: a stroke")
        if not numbers or len(numbers) % 2 or not all(type(n) in (int, float) and 0 <= n <= 1 for n in numbers):
            raise DataError(f"{name}: a stroke must be x, y, x, y ..., each a number from 0 to 1")
        found.append(np.array(numbers, np.float64).reshape(-1, 2))
    if (points := sum(map(len, found))) > MOST_POINTS:
        raise DataError(f"{name} has {points} points; at most {MOST_POINTS} are allowed")
    return found


def _json(body: bytes) -> Any:
    """The parsed body."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DataError("the message is not JSON") from error


def _fields(given: Any, name: str, wanted: set[str]) -> dict[str, Any]:
    """An object with exactly the wanted fields."""
    if not isinstance(given, dict) or given.keys() != wanted:
        raise DataError(f"{name} must be an object with the fields {', '.join(sorted(wanted))}, and no others")
    return given


def _list(given: Any, name: str) -> list[Any]:
    """A list."""
    if not isinstance(given, list):
        raise DataError(f"{name} must be a list")
    return given


def _shown(given: Any) -> str:
    """The value as JSON, cut after 40 characters."""
    text = json.dumps(given)
    return text if len(text) <= 40 else f"{text[:40]}..."
