"""Files: replaced whole or not at all, opened only if regular, never through a link; temporary ones never stay."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchreptile.core.files import (
    is_temporary,
    open_for_append,
    open_lock,
    open_regular,
    read_regular,
    remove_abandoned,
    replacing,
    working_folder,
    write_bytes,
)

posix = pytest.mark.skipif(os.name != "posix", reason="links, pipes and locks of POSIX systems")


def test_a_replaced_file_is_whole_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    with replacing(path) as temporary:
        assert is_temporary(temporary)
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_bytes(b"%d" % (1 // 0))
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["x" * 250, "ü" * 120, "two\nlines"])
def test_any_name_that_the_file_system_takes_can_be_replaced(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as temporary:
        assert is_temporary(temporary)
    assert os.listdir(tmp_path) == [name]


@posix
def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    target, link = tmp_path / "precious", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    write_bytes(link, b"new")
    assert not link.is_symlink()
    assert target.read_text() == "precious"


@posix
def test_only_what_a_dead_process_left_is_removed(tmp_path: Path) -> None:
    """A user's hidden files, links and the files that a living process writes stay."""
    code = (
        "import os, sys, pathlib\n"
        "from torchreptile.core.files import replacing, working_folder\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "with replacing(folder / 'store') as file, working_folder(folder, 'build') as (work, _):\n"
        "    file.write_bytes(b'half'); (work / 'object.o').write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert len(os.listdir(tmp_path)) == 2
    mine = tmp_path / ".notes.tmp"
    mine.write_text("mine")
    (tmp_path / "precious").write_text("precious")
    link = tmp_path / ".link-1-0a1b2c3d.tmp"
    link.symlink_to(tmp_path / "precious")
    with replacing(tmp_path / "other") as written, working_folder(tmp_path, "other") as (work, _):
        remove_abandoned(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([link, mine, tmp_path / "precious", written, work])
    remove_abandoned(tmp_path / "nowhere")


@posix
def test_a_lock_is_exclusive_and_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("a note")
    with open_lock(path), pytest.raises(BlockingIOError):
        open_lock(path)
    with open_lock(path):
        assert path.read_text() == "a note"


@posix
@pytest.mark.parametrize("opener", [open_lock, open_for_append], ids=["lock", "append"])
@pytest.mark.parametrize("target", ["precious", "missing"])
def test_nothing_is_opened_for_writing_through_a_link(tmp_path: Path, opener, target: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "precious").write_text("precious")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / target)
    with pytest.raises(OSError, match="it is a link, and links are not followed"):
        opener(link)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "missing").exists()


@posix
def test_a_file_of_two_names_is_changed_under_one(tmp_path: Path) -> None:
    """A copy that was made by hard links must not grow with the original."""
    path, copy = tmp_path / "metrics.jsonl", tmp_path / "copy.jsonl"
    path.write_bytes(b"1\n")
    os.link(path, copy)
    with open_for_append(path) as file:
        file.write(b"2\n")
    assert path.read_bytes() == b"1\n2\n"
    assert copy.read_bytes() == b"1\n"


@posix
def test_pipes_devices_folders_and_long_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path / "pipe", "a pipe"), (Path(os.devnull), "a device"), (tmp_path, "a folder")):
        with pytest.raises(OSError, match=f"it is {what}, not a file"):
            open_regular(path, 10)
    with pytest.raises(OSError, match="it is a pipe"):
        open_for_append(tmp_path / "pipe")
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=r"it has 1,099,511,627,776 bytes, more than the 10 "):
        read_regular(sparse, 10)
    (tmp_path / "link").symlink_to(tmp_path / "short")
    (tmp_path / "short").write_bytes(b"0123456789")
    assert read_regular(tmp_path / "link", 10) == b"0123456789"
