"""What others chose to call things reaches terminals, tables and csv files as plain text."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from torchreptile.cli.commands.console import show_lines
from torchreptile.cli.parser import parse
from torchreptile.core.csv_text import csv_cell, write_rows
from torchreptile.core.plain_console import PlainConsole
from torchreptile.core.streams import printable, say
from torchreptile.experiments.reports.markdown_csv import code, plain, table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 5-way ±", "plain text, 5-way ±"),
        ("Katze 猫 é", "Katze 猫 é"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bell\x07 \x9b2J", "bell\\x07 \\x9b2J"),
        ("gpj\u202eexe", "gpj\\u202eexe"),
        ("not utf-8 \udcff", "not utf-8 \\udcff"),
        ("over\rwritten", "over\\rwritten"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_console_takes_nothing_for_markup_or_orders(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    rows = Table()
    rows.add_column("[red]head")
    rows.add_row("a[/b] :smile: \x1b[2J")
    console = PlainConsole(width=60)
    console.print("run folder a[/b] :smile: \x1b[2J", highlight=False)
    console.print(rows)
    printed = capsys.readouterr().out
    assert printed.startswith("run folder a[/b] :smile: \\x1b[2J\n")
    assert "a[/b] :smile: \\x1b[2J " in printed
    assert "[red]head" in printed
    assert "\x1b" not in printed


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    say("no folder \x1b[2J")
    assert capsys.readouterr().err == "no folder \\x1b[2J\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_standard_error_that_is_full_ends_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stderr", full)
        assert parse(["train", "glyphs-5shot-5way", "--dry-run"]).run() == 0
        show_lines("nobody reads this", to_stderr=True)
    assert "would write" in capsys.readouterr().out


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_cells_are_no_formulas(start: str) -> None:
    file = io.StringIO(newline="")
    write_rows(file, [[f"{start}1+1", -0.5, "cat"]])
    file.seek(0)
    assert next(csv.reader(file)) == [f"'{start}1+1", "-0.5", "cat"]
    assert csv_cell(-1) == -1


def test_markdown_shows_names_as_they_are() -> None:
    assert plain("a|b [c](d) `e` *f* <g>") == r"a\|b \[c\](d) \`e\` \*f\* \<g>"
    assert table(("run",), [("x|y\nz",)]) == "| run |\n| --- |\n| x\\|y z |\n"


@pytest.mark.parametrize(("text", "shown"), [("a b", "`a b`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```")])
def test_code(text: str, shown: str) -> None:
    assert code(text) == shown
