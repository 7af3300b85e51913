"""The cache of prepared data: made once, made again when damaged, and safe when two processes make it at once."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch

from torchreptile.core.errors import DataError
from torchreptile.core.paths import cache_dir, data_dir
from torchreptile.data.cache import prepared
from torchreptile.data.image_store import ImageStore

FILE = "some-v1.safetensors"


def make_store() -> ImageStore:
    return ImageStore(
        images=torch.arange(2 * 9, dtype=torch.uint8).view(2, 1, 3, 3),
        class_sizes=torch.tensor([1, 1]),
        class_names=("a", "b"),
        name="some",
    )


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path))
    return tmp_path


def counted() -> tuple[Callable[[], ImageStore], list[int]]:
    """A ``prepare`` and the list that grows with each call of it."""
    calls: list[int] = []

    def prepare() -> ImageStore:
        calls.append(1)
        return make_store()

    return prepare, calls


def test_the_folders_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHREPTILE_CACHE", "~/somewhere")
    monkeypatch.setenv("TORCHREPTILE_DATA", "~/data")
    assert cache_dir() == Path.home() / "somewhere"
    assert data_dir() == Path.home() / "data"
    monkeypatch.delenv("TORCHREPTILE_CACHE")
    monkeypatch.setenv("TORCHREPTILE_DATA", "")
    assert cache_dir().name == "torchreptile"
    assert data_dir() is None


def test_a_store_is_prepared_once(cache: Path) -> None:
    prepare, calls = counted()
    stores = [prepared(FILE, prepare) for _ in range(2)]
    assert len(calls) == 1
    assert [store.fingerprint for store in stores] == [make_store().fingerprint] * 2
    assert list(cache.iterdir()) == [cache / FILE]


@pytest.mark.parametrize("content", [b"", b"not a store", None], ids=["empty", "text", "cut off"])
def test_a_damaged_cache_is_made_again(content: bytes | None, cache: Path) -> None:
    prepare, calls = counted()
    prepared(FILE, prepare)
    path = cache / FILE
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    assert prepared(FILE, prepare).fingerprint == make_store().fingerprint
    assert len(calls) == 2
    assert list(cache.iterdir()) == [path]


def test_a_preparation_that_fails_leaves_nothing(cache: Path) -> None:
    def fail() -> ImageStore:
        raise DataError("no images there")

    with pytest.raises(DataError, match="no images there"):
        prepared(FILE, fail)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_text("in the way")
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(cache / "file"))
    with pytest.raises(DataError, match=r"cannot write .*file.*; set TORCHREPTILE_CACHE"):
        prepared(FILE, make_store)


def prepare_together(barrier: Barrier) -> None:
    """In a separate process: prepare only when the other process prepares as well."""

    def prepare() -> ImageStore:
        barrier.wait(timeout=60)
        return make_store()

    assert prepared(FILE, prepare).fingerprint == make_store().fingerprint


def test_two_processes_that_prepare_at_once_both_succeed(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=prepare_together, args=(barrier,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert list(cache.iterdir()) == [cache / FILE]


def test_what_a_killed_preparation_left_is_removed_at_the_next_start(cache: Path) -> None:
    """A store half written may have 800 MB."""
    code = (
        "import os, sys, pathlib\n"
        "from torchreptile.core.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    prepare, calls = counted()
    prepared(FILE, prepare)
    subprocess.run([sys.executable, "-c", code, str(cache / FILE)], check=False)
    assert len(list(cache.iterdir())) == 2
    prepared(FILE, prepare)
    assert list(cache.iterdir()) == [cache / FILE]
    assert len(calls) == 1


def test_a_store_that_is_not_the_known_one_is_made_again(cache: Path) -> None:
    """A whole store of other images, in the place of a data set whose fingerprint is known."""
    prepare, calls = counted()
    replace(make_store(), images=make_store().images + 1).save(cache / FILE)
    assert prepared(FILE, prepare).fingerprint != make_store().fingerprint
    known = make_store().fingerprint
    assert prepared(FILE, prepare, known).fingerprint == prepared(FILE, prepare, known).fingerprint == known
    assert len(calls) == 1
