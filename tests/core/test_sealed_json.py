"""JSON with a checksum: what was written is read back, and any changed digit is noticed."""

from __future__ import annotations

import json
import random

import pytest

from torchreptile.core.sealed_json import parse_json, sealed, unsealed

CONTENT = {"mean": 0.1 + 0.2, "ci95": 1e-17, "seed": 2**63, "name": "Größe", "by_seed": {10: 1, 9: (2, None, True)}}


def test_what_was_written_is_read_back_in_any_form() -> None:
    expected = json.loads(json.dumps(CONTENT))
    for form in ({"indent": 2}, {"ensure_ascii": False}, {"sort_keys": False}):
        assert unsealed(parse_json(json.dumps(sealed(CONTENT), **form))) == expected  # type: ignore[arg-type]
    assert unsealed({"mean": 0.5}) == {"mean": 0.5}  # of earlier versions


def test_a_changed_character_is_noticed_or_changes_nothing() -> None:
    text, draw = json.dumps(sealed(CONTENT), indent=1), random.Random(0)
    expected = json.loads(json.dumps(CONTENT))
    for _ in range(500):
        at = draw.randrange(len(text))
        try:
            found = unsealed(parse_json(text[:at] + draw.choice('0123456789eE.-" \t') + text[at + 1 :]))
        except ValueError:
            continue
        assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "1e999", "1" * 400, "[" * 100_000, "{", "", "-1" + "0" * 30])
def test_numbers_that_are_none_and_deep_nesting_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse_json(text)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("content", [[], None, 3, "text"])
def test_only_objects_have_a_checksum(content: object) -> None:
    with pytest.raises(ValueError, match="not a JSON object"):
        unsealed(content)
