"""Archives of torch: every byte that counts is checked, and a pickle's work is bounded, before torch reads anything."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from torchreptile.core.torch_archive import ArchiveError, require_bounded, require_intact

CONTENT = {"params": {f"layer.{i}": torch.arange(600.0) + i for i in range(3)}, "step": 7, "name": "x"}
NESTED = b"\x80\x04)\x94" + b"".join(b"0(" + (b"h" + bytes([i])) * 10 + b"t\x94" for i in range(25))


@pytest.fixture(scope="module")
def intact() -> bytes:
    file = io.BytesIO()
    torch.save(CONTENT, file)
    return file.getvalue()


def rewritten(
    intact: bytes, change: Callable[[str, bytes], bytes] = lambda name, content: content, compression: int = 0
) -> bytes:
    """The archive, written again by zipfile with other members or another compression."""
    source, target = zipfile.ZipFile(io.BytesIO(intact)), io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as archive:
        for member in source.infolist():
            archive.writestr(member.filename, change(member.filename, source.read(member)))
    return target.getvalue()


def test_what_torch_or_zipfile_wrote_is_accepted(intact: bytes, tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "by name.pt")
    for content in (intact, rewritten(intact), (tmp_path / "by name.pt").read_bytes()):
        file = io.BytesIO(content)
        require_intact(file)
        assert torch.load(file, weights_only=True)["step"] == 7


def test_no_changed_byte_gives_other_values(intact: bytes) -> None:
    """A flipped bit, a run of zeros or a cut anywhere is refused, or torch reads exactly what was saved."""
    draw = random.Random(0)
    for number in range(400):
        broken, start = bytearray(intact), draw.randrange(len(intact))
        if number % 3 == 0:
            broken[start] ^= 1 << draw.randrange(8)
        elif number % 3 == 1:
            broken[start : start + 512] = bytes(len(broken[start : start + 512]))
        else:
            del broken[start:]
        file = io.BytesIO(broken)
        try:
            require_intact(file)
            found = torch.load(file, weights_only=True)
        except (ArchiveError, RuntimeError):
            continue
        assert found["step"] == 7
        assert all(torch.equal(found["params"][name], p) for name, p in CONTENT["params"].items())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda intact: intact + b"junk", "something follows the end|not an intact archive"),
        (lambda intact: b"junk" + intact, "do not fill the archive"),
        (lambda intact: rewritten(intact, compression=zipfile.ZIP_DEFLATED), "is compressed"),
        (lambda intact: rewritten(intact, lambda name, c: NESTED + b"}h\x19Ns." if "data.pkl" in name else c), "work"),
        (lambda intact: intact[:-22] + intact[-22:-2] + b"\x04\x00junk", "something follows the end"),
        (lambda intact: b"", "not an intact archive"),
        (lambda intact: b"\x80\x02}.", "not an intact archive"),
    ],
)
def test_what_is_no_archive_of_torch_is_refused(intact: bytes, change: Callable[[bytes], bytes], what: str) -> None:
    with pytest.raises(ArchiveError, match=what):
        require_intact(io.BytesIO(change(intact)))


def test_a_member_that_is_there_twice_is_refused(intact: bytes) -> None:
    target = io.BytesIO(intact)
    with zipfile.ZipFile(target, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.infolist()[0].filename, b"x")
    with pytest.raises(ArchiveError, match="more than once"):
        require_intact(target)


@pytest.mark.parametrize("protocol", range(6))
def test_honest_pickles_are_bounded(protocol: int) -> None:
    shared = ("storage", "cpu", 1)
    value = {"a": [shared] * 1000, "b": OrderedDict(x=1), "c": [[i, (i, shared)] for i in range(3000)], 3: {1, 2}}
    require_bounded(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "content",
    [
        NESTED + b"}h\x19Ns.",  # a key that is hashed for ever
        NESTED + b"\x85R.",
        b"\x80\x02]q\x00(" + b"K\x01" * 5000 + b"e0ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 5000 + b".",
        b"\x80\x02h\x07.",
        b"\x80\x02(q\x00.",
        b"\x80\x02t.",
        b"",
    ],
    ids=["key", "argument", "copies", "no such value", "mark", "no mark", "empty"],
)  # fmt: skip
def test_endless_and_broken_pickles_are_refused(content: bytes) -> None:
    with pytest.raises(ArchiveError, match="its pickle"):
        require_bounded(content)
