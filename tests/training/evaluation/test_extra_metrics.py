"""What an algorithm measures for itself, from training to the report; and a mode that does not apply."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.easy import small_config
from torchreptile.cli.commands.evaluate import print_evaluation
from torchreptile.core.config.algorithm_table import algorithm_row
from torchreptile.core.errors import ConfigError
from torchreptile.data.splits import Splits
from torchreptile.experiments.reports import report
from torchreptile.experiments.reports.learning_curves import draw_curves
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.published import Published
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import measured_from
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import train

SMALL = {"mann_units": 9, "mann_slots": 7, "mann_width": 5, "mann_heads": 2, "outer_steps": 2, "monitor_every": 1}
PRESENTATIONS = [f"presentation {number}" for number in (1, 2, 3, 4, 5, 10)]


@pytest.fixture
def run(tmp_path: Path, easy_data: Splits) -> Path:
    train(small_config(algorithm="mann", **SMALL), tmp_path / "run")
    return tmp_path / "run"


def test_metrics_have_further_measures_and_no_mode_that_does_not_apply(run: Path) -> None:
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert {f"val_presentation_{number}" for number in (1, 2, 3, 4, 5, 10)} <= line.keys()
    assert "val_presentation_10_ci95" in line
    assert "val_inductive" in line
    assert "val_transductive" not in line


def test_an_evaluation_keeps_prints_and_shows_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = algorithm_row("mann").extra_published
    monkeypatch.setitem(published, ("omniglot", 3, "presentation 2"), Published(77.1, None, "a paper"))
    evaluation = evaluate(run, episodes=6, device="cpu")
    assert list(evaluation.result.extra_metrics) == PRESENTATIONS
    saved = json.loads((run / evaluation.file_name).read_text())
    assert saved["result"]["transductive"] is None
    assert saved["published_percent"]["presentation 2"] == 77.1
    assert Evaluation.from_json(json.dumps(saved)).result == evaluation.result
    printed = StringIO()
    print_evaluation(evaluation, Console(file=printed, width=200))
    lines = printed.getvalue().splitlines()
    assert any("transductive" in line and "does not apply" in line for line in lines)
    assert any("presentation 2" in line and "77.10%" in line for line in lines)
    assert "inner steps" not in printed.getvalue()
    page = next(file for file in report(run) if file.suffix == ".html").read_text()
    assert "does not apply" in page
    assert str(evaluation.result.extra_metrics["presentation 10"]) in page


def test_the_curves_have_them_and_nothing_else_changes_without(run: Path) -> None:
    folder = RunFolder(run)
    metrics = folder.metrics()
    plain = [{key: value for key, value in line.items() if "presentation" not in key} for line in metrics]
    one = [{key: line[key] for key in line if key in plain[0] or "presentation_2" in key} for line in metrics]
    pictures = [draw_curves(folder.config(), lines) for lines in (metrics, one, plain)]
    assert len(set(pictures)) == 3


def test_inner_steps_are_refused_where_there_are_none(run: Path) -> None:
    with pytest.raises(ConfigError, match="eval_steps is 3, but mann takes no inner steps in an episode"):
        evaluate(run, episodes=6, eval_steps=3, device="cpu")
    own = RunFolder(run).config().evaluation.eval_steps
    assert evaluate(run, episodes=6, eval_steps=own, device="cpu").result.inductive.episodes == 6


def test_results_of_earlier_versions_have_none() -> None:
    accuracy = {"mean": 0.5, "ci95": 0.1, "episodes": 4}
    result = measured_from({"transductive": accuracy, "inductive": accuracy})
    assert result.extra_metrics == {}
    assert result.selected(True).mean == 0.5
