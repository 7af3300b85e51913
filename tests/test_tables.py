"""The README's table and docs/results.md: made of results/, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.easy import REPOSITORY, load_tool
from torchreptile.errors import ConfigError, TorchReptileError
from torchreptile.reproduce.reproduced import read_reproduced


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return load_tool("tables")


def test_readme_and_results_page_are_what_results_hold() -> None:
    checked = subprocess.run(
        [sys.executable, "tools/tables.py", "--check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_cell_shows_what_was_measured_and_what_was_not_the_published_training(
    tables: ModuleType, tmp_path: Path
) -> None:
    whole = (REPOSITORY / "results" / "omniglot-5way.json").read_text()
    (tmp_path / "omniglot-5way.json").write_text(whole)
    part = whole.replace('"share": 1.0', '"share": 0.25').replace('"split": "test"', '"split": "val"')
    (tmp_path / "omniglot-5way-0.25.json").write_text(part.replace("0.9757", "0.9012"))
    lines = tables.cells_table(tables.kept(tmp_path), ["reptile"]).splitlines()
    line = next(line for line in lines if "Omniglot 5-way 1-shot" in line)
    its = [cell.mean for cell in read_reproduced(tmp_path / "omniglot-5way.json").taken[0].cells if cell.shots == 1]
    published, here = line.split("|")[2:4]
    assert published.strip() == "97.68% ± 0.04"
    assert here.strip().startswith(
        f"{100 * its[0]:.2f}% ± 0.14<br>90.12% ± 0.14 (25% of the steps, validation classes)"
    )
    never = next(line for line in lines if "mini-ImageNet 5-way 1-shot" in line)
    assert [cell.strip() for cell in never.split("|")[2:6]] == ["49.97% ± 0.32", "", "47.07% ± 0.26", ""]


def test_a_figure_does_not_count_as_a_row(tables: ModuleType, tmp_path: Path) -> None:
    row = read_reproduced(REPOSITORY / "results" / "omniglot-5way.json")
    (tmp_path / "overlap.json").write_text(replace(row, name="minibatch-overlap").to_json())
    assert "97.57%" not in tables.cells_table(tables.kept(tmp_path), None)
    (tmp_path / "other.json").write_text(replace(row, name="other").to_json())
    with pytest.raises(ConfigError, match="unknown experiment other"):
        tables.kept(tmp_path)


def test_a_changed_result_is_noticed(tables: ModuleType, tmp_path: Path) -> None:
    its = (REPOSITORY / "results" / "omniglot-5way.json").read_text()
    (tmp_path / "omniglot-5way.json").write_text(its.replace("0.9757", "0.9999"))
    for path, text in tables.rendered(tmp_path).items():
        assert text != path.read_text()
        assert "99.99%" in text


def test_a_readme_without_its_place_is_refused(tables: ModuleType) -> None:
    with pytest.raises(TorchReptileError, match=r"README\.md has no lines"):
        tables.readme("# nothing", [])
