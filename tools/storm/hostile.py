"""Files that somebody made on purpose: they must run no code, leave nothing, and be refused on one line."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import random
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from command import reptile
from counts import Counts
from subjects import TINY, must

Maker = Callable[[random.Random, Path], bytes]


class _Code:
    """Pickled, it calls a function with a command that makes a file."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self._call


def _code(rng: random.Random, marker: Path) -> _Code:
    """Return something that makes ``marker`` when it is unpickled."""
    ways = [
        _Code(os.system, f"touch {marker}"),
        _Code(exec, f"open({str(marker)!r}, 'w')"),
        _Code(eval, f"open({str(marker)!r}, 'w')"),
        _Code(open, str(marker), "w"),
        _Code(os.mkdir, str(marker)),
        _Code(getattr, _Code(__import__, "os"), "system"),
    ]
    return rng.choice(ways)


def bare_pickle(rng: random.Random, marker: Path) -> bytes:
    """A pickle that calls a function."""
    return pickle.dumps(rng.choice([_code(rng, marker), {"params": _code(rng, marker)}]), rng.randrange(6))


def torch_with_code(rng: random.Random, marker: Path) -> bytes:
    """A file of torch.save with a call in it; sometimes in the old format."""
    file = io.BytesIO()
    torch.save({"format": "torchreptile-checkpoint-3", "params": _code(rng, marker)}, file,
               _use_new_zipfile_serialization=rng.random() < 0.5)  # fmt: skip
    return file.getvalue()


def zip_with_pickle(rng: random.Random, marker: Path) -> bytes:
    """An archive like torch's whose pickle calls a function."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_code(rng, marker), 2))
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def endless_pickle(rng: random.Random, marker: Path) -> bytes:
    """A few bytes that take for ever to hash: a key that is a tuple of tuples of tuples."""
    deep = b"".join(b"0(" + (b"h" + bytes([i])) * 10 + b"t\x94" for i in range(rng.choice([20, 30, 60])))
    return b"\x80\x04)\x94" + deep + b"}h\x05Ns."


def huge_pickle(rng: random.Random, marker: Path) -> bytes:
    """A pickle that claims lengths it does not have."""
    return (
        b"\x80\x04" + rng.choice([b"\x8e", b"\x8d", b"\x96"]) + struct.pack("<Q", 2 ** rng.choice([31, 40, 62])) + b"x."
    )


def nested_pickle(rng: random.Random, marker: Path) -> bytes:
    """Lists in lists, thousands deep."""
    depth = rng.choice([5_000, 100_000])
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def random_pickle(rng: random.Random, marker: Path) -> bytes:
    """Opcodes at random."""
    opcodes = b"().0125BCFGIJKLMNPQRSTUVXabcdegjlopqrstu]}\x80\x81\x85\x86\x87\x88\x89\x8c\x8f\x90\x93\x94\x95"
    return b"\x80\x04" + bytes(rng.choice(opcodes) for _ in range(rng.choice([10, 100, 1000]))) + b"."


def zip_bomb(rng: random.Random, marker: Path) -> bytes:
    """An archive of 64 MB of zeros in some kilobytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", bytes(64 << 20))
    return file.getvalue()


CHECKPOINTS: dict[str, Maker] = {
    "a bare pickle with code": bare_pickle, "torch.save with code": torch_with_code, "a zip with code": zip_with_pickle,
    "an endless pickle": endless_pickle, "a pickle of wrong lengths": huge_pickle, "a deep pickle": nested_pickle,
    "a random pickle": random_pickle, "a zip bomb": zip_bomb,
}  # fmt: skip
PICKLES = {name: maker for name, maker in CHECKPOINTS.items() if "zip" not in name and "torch" not in name}


def _member(name: str, **fields: object) -> tarfile.TarInfo:
    """Return a member of a tar archive."""
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


def escaping_tar(rng: random.Random, marker: Path) -> bytes:
    """An archive whose members have names outside of the folder, or are links and devices."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=rng.choice(["w", "w:gz", "w:xz"])) as archive:
        for name in (f"../../{marker.name}", str(marker), f"images/../../{marker.name}", "n01532829/x.jpg"):
            kind = rng.choice([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
            content = b"x" if kind == tarfile.REGTYPE else b""
            archive.addfile(_member(name, type=kind, size=len(content), linkname=str(marker)), io.BytesIO(content))
    return file.getvalue()


def huge_tar(rng: random.Random, marker: Path) -> bytes:
    """An archive whose member claims 10^15 bytes."""
    member = _member("n01532829/x.jpg", size=10 ** rng.choice([10, 15]))
    return member.tobuf(tarfile.GNU_FORMAT) + bytes(10240)


def random_tar(rng: random.Random, marker: Path) -> bytes:
    """Headers at random."""
    return rng.randbytes(rng.choice([0, 100, 512, 5120]))


def xz_bomb(rng: random.Random, marker: Path) -> bytes:
    """64 MB of zeros, compressed."""
    import lzma

    return lzma.compress(bytes(64 << 20), preset=0)


TARS: dict[str, Maker] = {
    "a tar that escapes": escaping_tar, "a tar of huge members": huge_tar, "a random tar": random_tar,
    "an xz of zeros": xz_bomb,
}  # fmt: skip


def attack(counts: Counts, folder: Path, options: argparse.Namespace, until: float) -> None:
    """Give hostile checkpoints, pickles and archives to the commands that read such files."""
    if not options.hostile:
        return
    run, marker = folder / "attacked", folder / "ran"
    must("train", "--dataset", "glyphs", *TINY, "--outer-steps", "1", "--monitor-every", "1", "--out", str(run))
    images = folder / "mini"
    images.mkdir()
    places = [
        ("last.pt", CHECKPOINTS, run / "last.pt", ("evaluate", str(run), "--episodes", "2")),
        ("pickle of mini-ImageNet", PICKLES, images / "mini-imagenet-cache-train.pkl", None),
        ("archive of mini-ImageNet", TARS, images / "images.tar", None),
    ]
    names = [(place, kind) for place in places for kind in place[1]]
    for attempt in range(options.hostile):
        if time.monotonic() > until:
            return
        (name, makers, file, words), kind = names[attempt % len(names)]
        rng = random.Random(f"{options.seed} {name} {kind} {attempt}")
        file.write_bytes(makers[kind](rng, marker))
        for split in ("train", "val", "test"):
            (images / f"{split}.csv").write_text("filename,label\nx.jpg,n01532829\n") if "archive" in name else None
        answer = reptile(*(words or ("data", "prepare", "mini-imagenet", "--data-root", str(images))))
        file.unlink()
        left = [path for path in (marker, folder.parent / marker.name) if os.path.lexists(path)]
        if left:
            counts.add(f"{name}: {kind}", "silent", "it ran code, or wrote outside of its folder")
            for path in left:
                path.rmdir() if path.is_dir() else path.unlink()
        elif answer.crash:
            counts.add(f"{name}: {kind}", "hangs" if answer.crash == "hang" else "tracebacks", answer.crash)
        elif answer.code == 2:
            counts.add(f"{name}: {kind}", "refused")
        else:
            counts.add(f"{name}: {kind}", "silent", f"exit code {answer.code}")
