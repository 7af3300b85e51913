"""The short help of ``reptile train`` and the full one."""

from __future__ import annotations

import io
import os
import sys

import pytest

from torchreptile.cli.parser import parse
from torchreptile.cli.short_help import COMMON


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(["train", *words])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_shows_the_common_flags_and_where_the_rest_is(capsys: pytest.CaptureFixture[str]) -> None:
    short, full = help_of(capsys, "--help"), help_of(capsys, "--help-all")
    assert all(f" {flag}" in short for flag in COMMON)
    assert "--split-seed" not in short
    assert "--split-seed" in full
    assert short.endswith(" more settings: reptile train --help-all\n")
    assert len(short.splitlines()) < len(full.splitlines()) / 2
    assert len({len(line) for line in short.splitlines() if line.startswith(("╭", "│", "╰"))}) == 1


@pytest.mark.parametrize("columns", ["60", "129", "130", "250"])
def test_help_is_drawn_for_terminals_of_any_width(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 130 columns on the parser puts boxes side by side."""
    monkeypatch.setenv("COLUMNS", columns)
    short = help_of(capsys, "--algorithm", "mann", "--help")
    assert all(f" {flag}" in short for flag in (*COMMON, "--mann-units"))
    assert "--split-seed" not in short
    assert max(len(line) for line in short.splitlines() if line.startswith("│")) == min(int(columns), 129)
    assert os.environ["COLUMNS"] == columns


def test_help_shows_the_settings_of_the_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--mann-units" in help_of(capsys, "--algorithm", "mann", "-h")
    assert "settings of this algorithm" not in help_of(capsys, "glyphs-1shot-5way", "-h")


def test_help_is_drawn_for_terminals_without_unicode(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    with pytest.raises(SystemExit):
        parse(["train", "--help"])
    shown.seek(0)
    assert "| --outer-steps INT" in shown.read()
