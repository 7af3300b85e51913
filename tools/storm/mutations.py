"""Ways to damage a file: what disks, transfers, editors and people do to it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Mutation = Callable[[random.Random, bytes], bytes]
BLOCK = 4096  # bytes of a block of most disks
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 1e-300, 1e300, float("nan"), float("inf"), 10**30, 10**400, "", "x", "=1+1", "\x1b[2J", [], {},
    [1], {"a": 1}, [[[[[[[]]]]]]], "9" * 500, -0.5, 2**63, "../../x",
]  # fmt: skip


def flip_bits(rng: random.Random, content: bytes) -> bytes:
    """Flip one to eight bits."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, content: bytes) -> bytes:
    """Cut the end off; sometimes all but nothing, sometimes one byte."""
    return content[: rng.choice([0, 1, rng.randrange(len(content)), len(content) - 1])]


def zero_block(rng: random.Random, content: bytes) -> bytes:
    """Zero a block, as a bad sector or a sparse copy leaves it."""
    size = min(rng.choice([16, 512, BLOCK, 16 * BLOCK]), len(content))
    start = rng.randrange(len(content) - size + 1)
    return content[:start] + bytes(size) + content[start + size :]


def splice(rng: random.Random, content: bytes) -> bytes:
    """Write a block of the file over another one, as a mixed-up block table does."""
    size = min(rng.choice([8, 64, 512, BLOCK]), max(1, len(content) // 2))
    source, target = (rng.randrange(len(content) - size + 1) for _ in range(2))
    return content[:target] + content[source : source + size] + content[target + size :]


def repeat(rng: random.Random, content: bytes) -> bytes:
    """Insert a part twice, or append rubbish."""
    if rng.random() < 0.5:
        return content + rng.randbytes(rng.choice([1, 100, BLOCK]))
    start = rng.randrange(len(content))
    return content[: start + 64] + content[start:]


def edit_digit(rng: random.Random, content: bytes) -> bytes:
    """Change one digit of a text."""
    places = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    if not places:
        return flip_bits(rng, content)
    place = rng.choice(places)
    other = rng.choice([digit for digit in range(48, 58) if digit != content[place]])
    return content[:place] + bytes([other]) + content[place + 1 :]


def edit_json(rng: random.Random, content: bytes) -> bytes:
    """Change, remove or add a value of JSON, or of one line of JSON lines, and write it out again."""
    lines = content.decode().splitlines()
    number = rng.randrange(len(lines)) if lines and lines[0].endswith("}") else -1  # -1: one object over all lines
    parsed = json.loads(lines[number] if number >= 0 else content)
    _edit(rng, parsed)
    text = json.dumps(parsed, indent=None if number >= 0 else 2)
    if number >= 0:
        return ("\n".join([*lines[:number], text, *lines[number + 1 :]]) + "\n").encode()
    return (text + "\n").encode()


def _edit(rng: random.Random, parsed: Any) -> None:
    """Change one value somewhere in parsed JSON."""
    places = list(_places(parsed))
    holder, key = rng.choice(places)
    value, action = holder[key], rng.random()
    if action < 0.15:
        del holder[key]
    elif action < 0.25 and isinstance(holder, dict):
        holder[rng.choice(["", "x", f"{key}2"])] = value
    elif action < 0.6 and isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = value + rng.choice([1, -1, 0.5, value])
    else:
        holder[key] = rng.choice(ODD_VALUES)


def _places(parsed: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) in parsed JSON."""
    keys = list(parsed) if isinstance(parsed, dict) else range(len(parsed)) if isinstance(parsed, list) else []
    return [place for key in keys for place in [(parsed, key), *_places(parsed[key])]]


def deep_json(rng: random.Random, content: bytes) -> bytes:
    """Replace JSON by something nested thousands deep."""
    depth = rng.choice([2_000, 60_000])
    return (rng.choice(["[", '{"a":']) * depth).encode()


def repack_torch(rng: random.Random, content: bytes) -> bytes:
    """Load a checkpoint, change an entry, and save it, so that the archive itself is sound."""
    import io

    import torch

    saved = torch.load(io.BytesIO(content), weights_only=True)
    holder = rng.choice([saved, saved, saved["params"], saved["inner"], saved["outer"]])
    key = rng.choice(list(holder))
    value = holder[key]
    if isinstance(value, torch.Tensor):
        odd = [value.half(), value.double(), value.reshape(-1)[:-1], value * float("nan"), value.to(torch.int32)]
        odd += [value.to_sparse(), value.reshape(1, *value.shape), value.to(torch.complex64), torch.zeros(0)]
        holder[key] = rng.choice([*odd, 3, None, "x", [value]])
    else:
        holder[key] = rng.choice(ODD_VALUES)
    file = io.BytesIO()
    torch.save(saved, file)
    return file.getvalue()


BINARY: dict[str, Mutation] = {
    "bits flipped": flip_bits, "cut off": truncate, "block zeroed": zero_block, "block spliced": splice,
    "part repeated": repeat,
}  # fmt: skip
TEXT = BINARY | {"digit changed": edit_digit, "value edited": edit_json, "nested deeply": deep_json}
CHECKPOINT = BINARY | {"entry replaced": repack_torch}


def swapped(other: Path) -> Mutation:
    """Return the mutation that puts another file of the same kind in the place of a file."""
    return lambda rng, content: other.read_bytes()
