"""Pickles and archives that claim more than they have: refused in no time and little memory, honest ones read fast."""

from __future__ import annotations

import gzip
import io
import lzma
import pickle
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from torchreptile.cli.commands import data_prepare
from torchreptile.core.errors import DataError
from torchreptile.core.files import replacing
from torchreptile.data.mini_imagenet import safe_unpickle, tar_stream
from torchreptile.data.mini_imagenet.pickles import Pickle

# A tuple of ten tuples of ten tuples ..., 25 deep, which takes for ever to hash or to show.
NESTED = b"\x80\x04)\x94" + b"".join(b"0(" + (b"h" + bytes([i])) * 10 + b"t\x94" for i in range(25)) + b"0"
LONG = b"]\x94(" + b"K\x01" * 20_000 + b"e"  # a list of 20,000, remembered as the first value
BUILD = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01"
U1 = b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R"


@pytest.fixture
def seconds() -> float:
    return time.monotonic()


@pytest.mark.parametrize(
    "content",
    [
        NESTED + b"}h\x19Ns.",
        NESTED + b"}(h\x19Nu.",
        NESTED + b"(h\x19Nd.",
        NESTED + b"\x8f(h\x19\x90.",
        NESTED + b"(h\x19\x91.",
        NESTED + b"cbuiltins\nset\n]h\x19a\x85R.",
        NESTED + b"cbuiltins\ndict\n]h\x19N\x86a\x85R.",
        NESTED + b"ccollections\nOrderedDict\n]h\x19N\x86a\x85R.",
        NESTED + b"(]h\x19aibuiltins\nset\n.",
        NESTED + b"(cbuiltins\nset\n]h\x19ao.",
        NESTED + b"h\x19Q.",
        NESTED + b"h\x19h\x19\x93.",
        NESTED + b"c_codecs\nencode\nX\x01\x00\x00\x00ah\x19\x86R.",
        NESTED + b"cnumpy\ndtype\nh\x19\x85R.",
        NESTED + BUILD + b"h\x19" + U1 + b"\x89C\x01atb.",
        BUILD + b"J\xff\xff\xff\x7f(K\x01t\x86" + U1 + b"\x89C\x01atb.",
        BUILD + b"(" + b"M\xff\xff" * 40 + b"t" + U1 + b"\x89C\x01atb.",
        BUILD + b"K\x01\x85cnumpy\ndtype\nX\x15\x00\x00\x00u1,(1000000000,1000)u1\x89\x88\x87R\x89C\x01atb.",
        LONG + b"cbuiltins\nlist\n\x94" + b"h\x01h\x00\x85R" * 5000 + b".",
        LONG + b"(cbuiltins\nlist\n\x940" + b"(h\x01h\x00o" * 5000 + b".",
        b"cbuiltins\nlist\n" + b"B\x00\x00\x01\x00" + bytes(65536) + b"\x85R.",
        b"]N\x94K\x01s.",
        b"\x8b\xff\xff\xff\x7f.",
        b"L" + b"9" * 10_000 + b"L\n.",
    ],
)  # fmt: skip
def test_a_pickle_that_asks_for_more_than_it_holds_is_refused(tmp_path: Path, content: bytes, seconds: float) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a.pkl: (not a complete pickle|the pickle names)") as caught:
        safe_unpickle.read(path)
    assert len(str(caught.value)) < 400
    assert time.monotonic() - seconds < 2


def test_many_arrays_are_read_in_linear_time(tmp_path: Path, seconds: float) -> None:
    """As where every picture is a separate array: 38,400 in the training split."""
    images = [np.full((4, 4, 3), number % 256, np.uint8) for number in range(8_000)]
    path = tmp_path / "a.pkl"
    for protocol in (2, 5):
        path.write_bytes(pickle.dumps({"data": images, "again": images[:3]}, protocol))
        found = safe_unpickle.read(path)
        assert all((found["data"][number] == images[number]).all() for number in (0, 255, 7_999))
        assert found["again"][2] is found["data"][2]  # what is remembered is the array, not its stand-in
    assert time.monotonic() - seconds < 15  # it was quadratic: 80 times longer than for a ninth of them


@pytest.mark.parametrize(
    "content",
    [
        {"data": np.zeros((1, 4, 4, 3), np.uint8), "labels": [10**5000]},
        {"data": np.zeros((1, 4, 4, 3), np.uint8), "labels": np.frombuffer(b"\xff" * 4, "<U1")},
        {"data": np.zeros((1, 4, 4, 3), np.uint8), "labels": [[1]]},
        {"image_data": np.zeros((), np.uint8), "class_dict": {}},
        {"image_data": 3, "class_dict": {}},
        {2**63: 1, 0.5: 2, None: 3},
        ([], []),
    ],
)
def test_content_that_cannot_be_is_refused_in_one_line(tmp_path: Path, content: object) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"a\.pkl: ") as caught:
        _ = Pickle(path, 4).classes
    assert "\n" not in str(caught.value)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The header of a member that claims to have ``size`` bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def compressed_zeros(before: bytes, megabytes: int) -> bytes:
    """``before`` and zeros, which xz makes 7,000 times smaller."""
    squeeze = lzma.LZMACompressor(preset=0)
    return b"".join(
        [squeeze.compress(before), *[squeeze.compress(bytes(2**20)) for _ in range(megabytes)], squeeze.flush()]
    )


@pytest.mark.parametrize("size", [10**15, 2**33, 2**62])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.LNKTYPE])
def test_members_longer_than_their_archive_are_refused_at_once(
    tmp_path: Path, size: int, kind: bytes, seconds: float
) -> None:
    path = tmp_path / "images.tar"
    path.write_bytes(header("a.jpg", size, kind) + bytes(1024))
    with pytest.raises(DataError, match=r"not a complete tar archive \(a member claims to have"):
        list(tar_stream.stream(path))
    path.write_bytes(header("a.jpg", min(size, 2**27), tarfile.REGTYPE) + bytes(1024))
    with pytest.raises(DataError, match="not a complete tar archive"):
        list(tar_stream.stream(path))
    assert time.monotonic() - seconds < 2


def test_an_archive_of_zeros_ends_with_an_error(
    tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_stream, "SPARE_BYTES", 2**20)
    path = tmp_path / "images.tar.xz"
    for before, why in (
        (b"", "unpacks to more than 100 times its length"),
        (header("a.jpg", 2**20), "unpacks to more than 100 times its length"),
        (header("a.jpg", 2**20, tarfile.GNUTYPE_LONGNAME), "end of file header"),
        (header("a.jpg", 2**30), "a member claims to have"),
    ):
        path.write_bytes(compressed_zeros(before, 16))
        with pytest.raises(DataError, match=why):
            list(tar_stream.stream(path))
    assert time.monotonic() - seconds < 5


@pytest.mark.parametrize("packed", [gzip.compress, lzma.compress])
def test_damage_behind_the_last_picture_is_noticed(tmp_path: Path, packed) -> None:  # type: ignore[no-untyped-def]
    """The checksum of a compressed file comes last, and counts for what was read before it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO(b""))
    path, intact = tmp_path / "images.tar.gz", packed(file.getvalue())
    path.write_bytes(intact)
    assert [name for name, _ in tar_stream.stream(path)] == ["a.jpg"]
    for damaged in (intact[:-3], intact[:-6] + b"\0\0\0\0\0\0"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a complete tar archive"):
            list(tar_stream.stream(path))


@pytest.mark.usefixtures("signals_count")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_preparation_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def half(loader: object) -> None:
        with replacing(tmp_path / "store") as file:
            file.write_bytes(b"half")
            signal.raise_signal(number)

    monkeypatch.setattr(data_prepare, "root", lambda data_root: tmp_path)
    monkeypatch.setattr(data_prepare, "sources", lambda folder: {"train": None})
    monkeypatch.setattr(data_prepare, "_prepared", half)
    with pytest.raises(KeyboardInterrupt):
        data_prepare.prepare("", "nearest")
    assert list(tmp_path.iterdir()) == []
