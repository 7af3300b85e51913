"""Pickles: what numpy writes is read back, whatever wrote it; what could run anything is refused by name, unrun."""

from __future__ import annotations

import os
import pickle
import struct
from collections import OrderedDict, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from torchreptile.core.errors import DataError
from torchreptile.data.mini_imagenet import safe_unpickle as pickled

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 30, 30, 3), dtype=np.uint8)  # above pickled.LARGE


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_come_back(tmp_path: Path, protocol: int) -> None:
    value = {
        "image_data": IMAGES,
        "by columns": np.asfortranarray(IMAGES[0, :, :, 0]),
        "small": np.arange(6, dtype=">i4").reshape(2, 3),
        "floats": np.linspace(0, 1, 5),
        "objects": np.array(["a", None, 3], dtype=object),
        "scalar": np.int64(7),
        "class_dict": OrderedDict(n01=[0, 1], n02=[2]),
        "lists": defaultdict(list, {1: [2]}),
        "plain": (1, 2.5, True, None, "text", b"bytes", {3}, -(2**70)),
    }
    found = pickled.read(written(tmp_path, pickle.dumps(value, protocol=protocol)))
    for key in ("image_data", "by columns", "small", "floats", "objects"):
        np.testing.assert_array_equal(found[key], value[key])
        assert found[key].dtype == value[key].dtype
    for key in ("scalar", "class_dict", "lists", "plain"):
        assert found[key] == value[key]


def python2(array: np.ndarray) -> bytes:
    """The bytes of ``{'image_data': array}`` as Python 2 with protocol 2 writes them: strings without an encoding."""

    def string(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    shape = b"(" + b"".join(b"M" + struct.pack("<H", size) for size in array.shape) + b"t"
    dtype = (
        b"cnumpy\ndtype\n("
        + string(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + string(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + string(b"b") + b"tR"
    state = b"(K\x01" + shape + dtype + b"\x89" + string(array.tobytes()) + b"tb"
    return b"\x80\x02}(" + string(b"image_data") + made + state + b"u."


def test_a_pickle_of_python_2_is_read_and_its_pixels_stay_in_the_file(tmp_path: Path) -> None:
    content = python2(IMAGES)
    assert (pickle.loads(content, encoding="latin1")["image_data"] == IMAGES).all()
    found = pickled.read(written(tmp_path, content))
    np.testing.assert_array_equal(found[b"image_data"], IMAGES)
    assert not found[b"image_data"].flags.owndata


class Evil:
    def __init__(self, run: Any, *arguments: Any) -> None:
        self.call = (run, arguments)

    def __reduce__(self) -> Any:
        return self.call


def build_on(named: bytes) -> bytes:
    """A pickle that sets an attribute of something it may name."""
    return b"\x80\x02c" + named + b"\n}X\x01\x00\x00\x00aK\x01sb."


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (pickle.dumps(Evil(os.system, "touch evil")), "posix.system"),
        (pickle.dumps({"data": [Evil(eval, "1")]}), "builtins.eval"),
        (pickle.dumps(Evil(open, "evil", "w"), protocol=0), "io.open|_io.open|builtins.open"),
        (pickle.dumps(np.frombuffer), "numpy.*frombuffer"),
        (pickle.dumps(np.load), "numpy.load"),
        (pickle.dumps(Path("x")), "pathlib"),
        (pickle.dumps(getattr), "builtins.getattr"),
        (b"cos\nsystem\n(S'touch evil'\ntR.", "os.system"),
        (b"(S'touch evil'\nios\nsystem\n.", "os.system"),
        (b"Pother\n.", "the object 'other' outside of it"),
        (b"\x80\x02\x82\x01.", "the extension 1"),
        (pickle.dumps(np.zeros(2, dtype=[("a", "u1"), ("b", "O")])), "numpy.dtype"),
        (pickle.dumps(np.zeros(2, dtype="M8[s]")), "numpy.dtype 'M8'"),
        (pickle.dumps(np.zeros(2, dtype="V8")), "numpy.dtype 'V8'"),
        (build_on(b"_codecs\nencode"), "a state for function"),
        (build_on(b"collections\nOrderedDict"), "a state for type"),
    ],
)
def test_what_a_pickle_must_not_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, content)
    with pytest.raises(
        DataError, match=rf"a.pkl: the pickle names ({named}).*; only numpy arrays .* nothing in it was"
    ):
        pickled.read(path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.pkl"]


INTACT = pickle.dumps({"data": IMAGES, "labels": [1]})


@pytest.mark.parametrize(
    "content",
    [
        b"not a pickle",
        INTACT[:100],
        INTACT[: len(INTACT) // 2],
        INTACT[:-1],
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x09.",
        b"}]K\x01s.",
        b".",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n)R(K\x01K\x01K\x01K\x01K\x01tb.",
        python2(IMAGES).replace(b"K\x01(M", b"K\x01(M\x01", 1),
    ],
)
def test_damaged_pickles_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match=r"a.pkl: (not a complete pickle|the pickle names)") as caught:
        pickled.read(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.pkl: cannot be read"):
        pickled.read(written(tmp_path, b""))
    for path in (tmp_path, tmp_path / "none.pkl"):
        with pytest.raises(DataError, match=f"{path.name}: cannot be read"):
            pickled.read(path)


def test_no_damaged_byte_makes_anything_but_a_dataerror(tmp_path: Path) -> None:
    """Every byte of a small pickle changed in four ways: it is read, or refused."""
    intact = pickle.dumps({"data": IMAGES[:1, :2, :2], "labels": [1, 2]}, protocol=2)
    path = tmp_path / "a.pkl"
    for at in range(len(intact)):
        for flip in (1, 16, 128, 255):
            path.write_bytes(intact[:at] + bytes([intact[at] ^ flip]) + intact[at + 1 :])
            with suppress(DataError):
                pickled.read(path)
