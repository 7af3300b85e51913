"""Completion with the Tab key: the script is installed where the shell looks, and completes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from torchreptile.cli.commands.completion import completion, location, script
from torchreptile.core.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands_and_flags(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert completion("bash", show=False) == 0
    file = home / "bash-completion" / "completions" / "reptile"
    assert str(file) in capsys.readouterr().out
    assert completion("bash", show=False) == 0  # its own script is replaced

    def completed(*words: str) -> list[str]:
        line = f'source "{file}"; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; '
        function = "$(complete -p reptile | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
        done = subprocess.run(
            ["bash", "-c", line + f'{function} reptile "{words[-1]}" ""; printf "%s\\n" "${{COMPREPLY[@]}}"'],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout.split()

    assert completed("reptile", "tra") == ["train"]
    assert completed("reptile", "train", "--outer-step") == [
        "--outer-steps",
        "--outer-step-size",
        "--outer-step-size-final",
    ]


def test_the_script_of_zsh_is_shown(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert completion("zsh", show=True) == 0
    assert capsys.readouterr().out.startswith("#compdef reptile")
    assert list(home.iterdir()) == []


def test_a_file_of_somebody_else_is_left_alone(home: Path) -> None:
    location("zsh").parent.mkdir(parents=True)
    location("zsh").write_text("mine")
    with pytest.raises(ConfigError, match="_reptile is not a completion script of reptile"):
        completion("zsh", show=False)
    assert location("zsh").read_text() == "mine"


def test_the_login_shell_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/zsh")
    assert completion("auto", show=True) == 0
    assert capsys.readouterr().out.rstrip() == script("zsh").rstrip()
    monkeypatch.setenv("SHELL", "/usr/bin/nu")
    with pytest.raises(ConfigError, match="the login shell is nu; name bash or zsh"):
        completion("auto", show=True)
