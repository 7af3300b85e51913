"""How compiled code gets into the cache and out of it: compilers that fail or hang, files cut short, two at once."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from torchreptile.core.errors import ConfigError
from torchreptile.models.conv4 import native_compiler as compiling
from torchreptile.models.conv4 import native_library as building
from torchreptile.models.conv4.native_library import NativeUnavailableError, native_library
from torchreptile.models.conv4.network import for_images
from torchreptile.models.execution.choose import choose_execution

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"
)
CPU, SHAPE = torch.device("cpu"), (1, 28, 28)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something smaller to compile, and a compiler that no other test has chosen."""
    path = tmp_path / "code" / compiling.MAIN
    path.parent.mkdir()
    path.write_text('extern "C" int answer() { return 42; }\n')
    monkeypatch.setattr(compiling, "CODE", path.parent)
    monkeypatch.delenv("CXX", raising=False)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return building._private_folder(tmp_path / "native")


def script(path: Path, content: str) -> str:
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(0o755)
    return str(path)


def library_file(folder: Path) -> Path:
    return building._library(folder)[0]


def answer(library: Path) -> int:
    code = building._verified(library)
    assert code is not None
    return int(building._loaded(code).answer())


@needs_compiler
@pytest.mark.usefixtures("source")
def test_it_is_compiled_once(folder: Path) -> None:
    library = library_file(folder)
    assert answer(library) == 42
    before = library.stat().st_mtime_ns
    assert library_file(folder) == library
    assert library.stat().st_mtime_ns == before
    assert list(folder.iterdir()) == [library]


@needs_compiler
def test_other_code_is_another_library(source: Path, folder: Path) -> None:
    first = library_file(folder)
    source.write_text('extern "C" int answer() { return 43; }\n')
    second = library_file(folder)
    assert first != second
    assert answer(second) == 43


@needs_compiler
@pytest.mark.usefixtures("source")
@pytest.mark.parametrize("damage", ["cut", "empty", "changed"])
def test_a_damaged_file_is_made_again(folder: Path, damage: str) -> None:
    library = library_file(folder)
    content = library.read_bytes()
    broken = {"cut": content[: len(content) // 2], "empty": b"", "changed": b"\0" + content[1:]}[damage]
    library.write_bytes(broken)
    assert library_file(folder) == library
    assert library.read_bytes() != broken
    assert answer(library) == 42


@needs_compiler
@pytest.mark.usefixtures("source")
def test_two_at_once_both_succeed(folder: Path) -> None:
    with ThreadPoolExecutor(4) as several:
        libraries = list(several.map(library_file, [folder] * 4))
    assert len(set(libraries)) == 1
    assert list(folder.iterdir()) == libraries[:1]  # nothing half-written stays
    assert answer(libraries[0]) == 42


@needs_compiler
def test_code_that_does_not_compile_says_so(source: Path, folder: Path) -> None:
    source.write_text("this is no C++\n")
    with pytest.raises(NativeUnavailableError, match=r"failed: .*error"):
        library_file(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("source")
def test_compilers_that_cannot_be_used(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "nowhere"))
    with pytest.raises(NativeUnavailableError, match=r"nowhere does not start \(No such file"):
        library_file(folder)
    monkeypatch.setenv("CXX", script(tmp_path / "broken", "echo some notice; echo fatal error: no licence; exit 3"))
    with pytest.raises(NativeUnavailableError, match=r"broken failed: fatal error: no licence$"):
        library_file(folder)
    monkeypatch.setenv("CXX", script(tmp_path / "mute", "exit 1"))
    with pytest.raises(NativeUnavailableError, match=r"mute failed: no output$"):
        library_file(folder)
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(NativeUnavailableError, match=r"no C\+\+ compiler: neither \$CXX nor g\+\+ nor clang\+\+"):
        library_file(folder)


@needs_compiler
@pytest.mark.usefixtures("source")
def test_where_one_compiler_fails_the_next_is_tried(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = shutil.which("g++") or shutil.which("clang++")
    script(tmp_path / "g++", "exit 1")
    script(tmp_path / "clang++", f'PATH="{os.environ["PATH"]}" exec {working} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert answer(library_file(folder)) == 42


@needs_compiler
@pytest.mark.usefixtures("source")
def test_what_is_loaded_is_what_was_verified(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can swap the file, or its folder, between the check and the loading changes nothing."""
    library, code = building._library(folder)
    foreign = b"\x7fELF foreign code"
    library.write_bytes(foreign + hashlib.sha256(foreign).digest())
    assert building._loaded(code).answer() == 42
    monkeypatch.delattr(os, "memfd_create", raising=False)  # where nothing can be loaded from memory
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert building._loaded(code).answer() == 42
    assert list(folder.iterdir()) == [library]


def test_a_file_of_another_user_is_not_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = folder / "conv4.so"
    library.write_bytes(b"code" + hashlib.sha256(b"code").digest())
    library.chmod(0o700)
    assert building._verified(library) == b"code"
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert building._verified(library) is None


def test_a_pipe_in_the_place_of_the_library_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "conv4.so")
    assert building._verified(folder / "conv4.so") is None


def hanging_compiler(folder: Path, alive: Path) -> str:
    """A compiler that answers what it is, and then waits for a process of its own that keeps writing ``alive``."""
    hangs = f"(while true; do date > {alive}; sleep 0.05; done) & wait"
    return script(folder / "slow", f'case "$*" in *-dM*) echo 1;; *) {hangs};; esac')


@pytest.mark.usefixtures("source")
def test_a_killed_process_takes_its_compiler_along_and_its_files_go_at_the_next_start(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    slow = hanging_compiler(tmp_path, alive)
    code = (
        "import pathlib, sys\n"
        "from torchreptile.models.conv4.native_library import _library\n"
        "_library(pathlib.Path(sys.argv[1]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], env={**os.environ, "CXX": slow})
    while not alive.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert len(list(folder.iterdir())) == 1
    time.sleep(0.3)
    alive.unlink(missing_ok=True)
    time.sleep(0.3)
    assert not alive.exists()
    monkeypatch.setenv("CXX", str(tmp_path / "nowhere"))
    with pytest.raises(NativeUnavailableError, match="does not start"):
        building._library(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.usefixtures("source")
def test_a_compiler_that_hangs_is_ended_with_all_it_started(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    monkeypatch.setenv("CXX", hanging_compiler(tmp_path, alive))
    monkeypatch.setattr(compiling, "BUILD_SECONDS", 1.0)
    start = time.monotonic()
    with pytest.raises(NativeUnavailableError, match=r"slow took longer than 1 seconds"):
        library_file(folder)
    assert time.monotonic() - start < 20
    assert alive.exists()
    alive.unlink()
    time.sleep(0.5)
    assert not alive.exists()
    assert list(folder.iterdir()) == []


def test_the_folder_must_be_the_users_alone(tmp_path: Path) -> None:
    folder = building._private_folder(tmp_path / "deep" / "native")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    with pytest.raises(NativeUnavailableError, match=r"native must be a folder that you own .* delete it"):
        building._private_folder(folder)
    folder.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(NativeUnavailableError, match="link must be a folder that you own"):
        building._private_folder(link)


@needs_compiler
@pytest.mark.usefixtures("source")
def test_a_library_that_others_may_write_is_made_again(folder: Path) -> None:
    library = library_file(folder)
    library.chmod(0o666)
    assert building._verified(library) is None
    assert library_file(folder) == library
    assert stat.S_IMODE(library.stat().st_mode) == 0o700


def test_a_compiler_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "g++ 'x")
    with pytest.raises(NativeUnavailableError, match=r"\$CXX cannot be read \(No closing quotation\)"):
        library_file(folder)


def test_without_it_auto_takes_another_and_a_wish_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "nowhere"))
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path))
    building._library_or_reason.cache_clear()
    try:
        with pytest.raises(NativeUnavailableError):
            native_library()
        chosen = choose_execution("auto", for_images(SHAPE, 3), SHAPE, CPU, task_steps=1)
        assert chosen.name == "grouped"
        assert "not native: " in chosen.reason
        assert "nowhere does not start" in chosen.reason
        with pytest.raises(ConfigError, match=r"execution native is not possible here: .*nowhere does not start"):
            choose_execution("native", for_images(SHAPE, 3), SHAPE, CPU)
    finally:
        building._library_or_reason.cache_clear()


def test_a_cache_that_cannot_be_written_is_an_obstacle_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path / "file"))
    building._library_or_reason.cache_clear()
    try:
        with pytest.raises(NativeUnavailableError, match="file"):
            native_library()
    finally:
        building._library_or_reason.cache_clear()


@needs_compiler
def test_the_execution_names_the_library_by_its_file() -> None:
    """For env.json: source, compiler or processor, one of them differs where the key does."""
    chosen = choose_execution("native", for_images(SHAPE, 3), SHAPE, CPU)
    assert (building._own_folder() / f"conv4-{chosen.library}.so").is_file()
    assert choose_execution("loop", for_images(SHAPE, 3), SHAPE, CPU).library == ""
