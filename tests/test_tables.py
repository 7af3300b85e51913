"""The README's table and docs/results.md: made of results/, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from tests.easy import REPOSITORY, load_script
from torchreptile.core.errors import ConfigError, RunError, TorchReptileError
from torchreptile.experiments.reports.reproduction_figures import draw_reproduced, is_drawn
from torchreptile.experiments.reproduce import EXPERIMENTS
from torchreptile.experiments.reproduce.result import read_reproduced


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return load_script("tools", "tables")


def test_readme_and_results_page_are_what_results_hold() -> None:
    checked = subprocess.run(
        [sys.executable, "tools/tables.py", "--check"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_cell_shows_what_was_measured_and_what_was_not_the_published_training(
    tables: ModuleType, tmp_path: Path
) -> None:
    complete = read_reproduced(REPOSITORY / "results" / "omniglot-5way.json")
    (tmp_path / "omniglot-5way.json").write_text(complete.to_json())
    cells = [replace(cell, split="val", mean=0.9012, ci95=0.0014) for cell in complete.trainings[0].cells]
    config = complete.trainings[0].config.replace(outer_steps=25_000)
    part = replace(complete, share=0.25, trainings=[replace(complete.trainings[0], cells=cells, config=config)])
    (tmp_path / "omniglot-5way-0.25.json").write_text(part.to_json())
    lines = tables.cells_table(tables.stored_results(tmp_path), ["reptile"]).splitlines()
    line = next(line for line in lines if "Omniglot 5-way 1-shot" in line)
    cell = next(cell for cell in complete.trainings[0].cells if (cell.shots, cell.measure) == (1, "transductive"))
    published, here = line.split("|")[2:4]
    assert published.strip() == "97.68% ± 0.04"
    its = f"{100 * cell.mean:.2f}% ± {100 * cell.ci95:.2f}"
    assert here.strip() == f"{its}<br>90.12% ± 0.14 (25% of the steps, validation classes)"
    never = next(line for line in lines if "mini-ImageNet 5-way 1-shot" in line)
    assert [cell.strip() for cell in never.split("|")[2:6]] == ["49.97% ± 0.32", "", "47.07% ± 0.26", ""]


def test_a_figure_does_not_count_as_a_row(tables: ModuleType, tmp_path: Path) -> None:
    row = read_reproduced(REPOSITORY / "results" / "omniglot-5way.json")
    arm = EXPERIMENTS["minibatch-overlap"].arms[0]
    trained = replace(row.trainings[0], arm=arm.name, config=arm.config)
    figure = replace(row, name="minibatch-overlap", trainings=[trained])
    entry = tables.StoredResult(tmp_path / "overlap.json", figure)
    assert tables.cells_table([entry], None) == tables.cells_table([], None)
    cells = [replace(cell, eval_steps=5, eval_batch=25) for cell in trained.cells if cell.shots == 5]
    entry.file.write_text(replace(figure, trainings=[replace(trained, cells=cells)]).to_json())
    with pytest.raises(RunError, match=r"overlap\.json is incomplete: .* missing"):
        tables.stored_results(tmp_path)
    entry.file.unlink()
    (tmp_path / "other.json").write_text(replace(row, name="other").to_json())
    with pytest.raises(ConfigError, match="unknown experiment other"):
        tables.stored_results(tmp_path)


def test_a_result_of_other_settings_is_refused(tables: ModuleType, tmp_path: Path) -> None:
    row = read_reproduced(REPOSITORY / "results" / "omniglot-5way.json")
    changed = replace(row.trainings[0], config=row.trainings[0].config.replace(inner_lr=0.5))
    (tmp_path / "omniglot-5way.json").write_text(replace(row, trainings=[changed]).to_json())
    with pytest.raises(RunError, match=r"other settings \(reptile-seed0: inner_lr 0.5, not 0.001\)"):
        tables.stored_results(tmp_path)


def test_a_picture_knows_its_result(tmp_path: Path) -> None:
    row = read_reproduced(REPOSITORY / "results" / "omniglot-5way.json")
    which = EXPERIMENTS[row.name]
    (tmp_path / "row.png").write_bytes(draw_reproduced(row, which))
    assert is_drawn(tmp_path / "row.png", row, which)
    assert not is_drawn(tmp_path / "row.png", replace(row, share=0.5), which)
    assert not is_drawn(tmp_path / "none.png", row, which)
    assert not is_drawn(tmp_path / "row.png", row, replace(which, what="renamed"))


def test_a_changed_result_is_noticed(tables: ModuleType, tmp_path: Path) -> None:
    complete = read_reproduced(REPOSITORY / "results" / "omniglot-5way.json")
    cells = [replace(cell, mean=0.9999) for cell in complete.trainings[0].cells]
    changed = replace(complete, trainings=[replace(complete.trainings[0], cells=cells)])
    (tmp_path / "omniglot-5way.json").write_text(changed.to_json())
    for path, text in tables.rendered(tables.stored_results(tmp_path)).items():
        assert text != path.read_text()
        assert "99.99%" in text


def test_a_readme_without_its_place_is_refused(tables: ModuleType) -> None:
    with pytest.raises(TorchReptileError, match=r"README\.md has no lines"):
        tables.readme("# nothing", [])
