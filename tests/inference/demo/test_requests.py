"""Messages from strangers: what is read of them, and the line that answers what cannot be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from torchreptile.core.errors import DataError
from torchreptile.inference.demo.requests import MOST_IMAGES, question, text_of, whole_number

SHAPE = (1, 28, 28)
LINE: dict[str, Any] = {"strokes": [[0.1, 0.1, 0.9, 0.8]]}
GOOD: dict[str, Any] = {"classes": [[LINE], [LINE, LINE]], "query": LINE, "steps": 5}


def asked(**changes: Any) -> bytes:
    return json.dumps(GOOD | changes).encode()


def test_a_good_message_is_read() -> None:
    pixels = np.arange(784, dtype=np.uint8).reshape(SHAPE)
    read = question(asked(classes=[[LINE], [text_of(pixels), LINE]], query=None), SHAPE)
    assert [len(images) for images in read.classes] == [1, 2]
    assert (read.classes[1][0] == pixels).all()
    assert read.query is None
    assert read.steps == 5


BAD: list[tuple[bytes, str]] = [
    (b"", "the message is not JSON"),
    (b"\xff\xfe", "the message is not JSON"),
    (b"[" * 100_000, "the message is not JSON"),
    (b"9" * 10_000, "the message is not JSON"),
    (b"[]", "must be an object with the fields classes, query, steps, and no others"),
    (b'{"classes": []}', "must be an object with the fields"),
    (asked(path="/etc/passwd"), "and no others"),
    (asked(classes=[]), "there are 0 classes"),
    (asked(classes=[[LINE]]), "there are 1 classes"),
    (asked(classes=[[LINE]] * 21), "there are 21 classes with drawings; 2 to 20"),
    (asked(classes="ab"), "classes must be a list"),
    (asked(classes=["a", "b"]), "class 1 must be a list"),
    (asked(classes=[[LINE], []]), "class 2 has no drawing"),
    (asked(classes=[[LINE] * MOST_IMAGES, [LINE]]), "there are 201 drawings"),
    (asked(classes=[[LINE], [7]]), "drawing 1 of class 2 must be"),
    (asked(query=LINE | {"pixels": ""}), "the new drawing must be"),
    (asked(query={"strokes": []}), "the drawing is empty"),
    (asked(query={"strokes": [[]]}), "a stroke must be x, y"),
    (asked(query={"strokes": [[0.5]]}), "a stroke must be x, y"),
    (asked(query={"strokes": [[0.5, 1.5]]}), "from 0 to 1"),
    (asked(query={"strokes": [[0.5, float("nan")]]}), "from 0 to 1"),
    (asked(query={"strokes": [[True, 0]]}), "from 0 to 1"),
    (asked(query={"strokes": [["0", "0"]]}), "from 0 to 1"),
    (asked(query={"strokes": [[0.5, 0.5]] * 201}), "201 strokes"),
    (asked(query={"strokes": [[0.5, 0.5] * 5001]}), "5001 points"),
    (asked(query={"pixels": "//8="}), "2 bytes of pixels; this network's images have 784"),
    (asked(query={"pixels": "%%"}), "not base64"),
    (asked(query={"pixels": 5}), "not base64"),
    (asked(steps=0), "steps is 0; it must be a whole number from 1 to 200"),
    (asked(steps=201), "steps is 201"),
    (asked(steps=True), "steps is true"),
    (asked(steps=1.5), "steps is 1.5"),
    (asked(steps="x" * 500), r'steps is "x{39}\.\.\.; it must'),
]


@pytest.mark.parametrize(("body", "answer"), BAD)
def test_a_bad_message_gets_one_short_line(body: bytes, answer: str) -> None:
    with pytest.raises(DataError, match=answer) as refused:
        question(body, SHAPE)
    assert len(str(refused.value)) < 200
    assert "\n" not in str(refused.value)


def test_bounds_are_inclusive() -> None:
    assert [whole_number(value, "n", 1, 3) for value in (1, 3)] == [1, 3]


def test_all_drawings_together_are_bounded() -> None:
    """200 drawings of 5,000 points each would take a minute to draw."""
    drawing = {"strokes": [[0.1, 0.2] * 4000]}
    message = {"classes": [[drawing] * 6, [drawing] * 5], "query": None, "steps": 1}
    with pytest.raises(DataError, match=r"there are 44,000 points in all drawings; at most 40,000 are allowed"):
        question(json.dumps(message).encode(), (1, 28, 28))
