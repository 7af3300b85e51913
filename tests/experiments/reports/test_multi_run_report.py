"""Runs side by side: what the page, the Markdown and the CSV say, and which runs cannot be put beside one another."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.easy import small_config
from tests.runs import resealed
from torchreptile.cli import parse
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.data.splits import Splits
from torchreptile.experiments.reports import report, report_runs
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.train import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, splits: Splits) -> list[Path]:
    """Reptile, measured twice, and a Prototypical Network, not measured."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        for module in ("training.setup", "training.evaluation.evaluate"):
            patch.setattr(f"torchreptile.{module}.load_splits", lambda task: splits)
        train(small_config(outer_steps=3, monitor_every=1, eval_steps=1), folder / "one|run")
        train(small_config(algorithm="protonet", outer_steps=2, monitor_every=1), folder / "other")
        for shots in (1, 2):
            evaluate(folder / "one|run", episodes=20, shots=shots)
    return [folder / "one|run", folder / "other"]


def test_page_markdown_and_csv(runs: list[Path], tmp_path: Path) -> None:
    written = report_runs(runs, tmp_path / "out")
    assert [path.name for path in written] == ["curves.png", "report.html", "report.md", "report.csv"]
    picture, page, markdown, table = written
    with Image.open(picture) as image:
        assert min(image.size) > 500
    results = [Evaluation.from_json(file.read_text()).result for file in runs[0].glob("eval-*.json")]
    html, text = page.read_text(encoding="utf-8"), markdown.read_text(encoding="utf-8")
    assert len(results) == 2
    for result in results:
        for measured in result.measures().values():
            assert str(measured) in html
            assert str(measured) in text
    for words in ("2 runs side by side", "protonet", "3-way 1-shot", "3-way 2-shot", "outer_steps"):
        assert words in html
    assert "| one\\|run | reptile |" in text  # what would end the cell is escaped
    assert "| outer_steps | 3 | 2 |" in text
    assert "way |" not in text  # the same in both
    # It asks nothing of the world outside.
    assert not re.search(r"<script|<link|url\(|https?://", html)

    rows = list(csv.DictReader(io.StringIO(table.read_text(encoding="utf-8"))))
    assert [row["run"] for row in rows] == ["one|run"] * 4 + ["other"]
    for row, result in zip(rows[::2], results, strict=False):
        expected = [r.transductive.mean for r in results if r.transductive]
        assert float(row["mean"]) in expected
        assert row["measure"] == "transductive"
        assert result.episodes == int(row["episodes"])
    assert rows[-1]["measure"] == ""
    assert rows[-1]["outer_steps_done"] == "2"


def test_one_run_has_markdown_and_csv_too(runs: list[Path], easy_data: Splits, tmp_path: Path) -> None:
    written = report(runs[0], out=tmp_path / "elsewhere")
    assert [path.name for path in written] == ["curves.png", "report.html", "report.md", "report.csv"]
    text = written[2].read_text(encoding="utf-8")
    assert "Settings that differ" not in text
    assert text.count("3-way 2-shot") == 2


def test_the_command(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(["report", *map(str, runs)]).run() == 0
    assert capsys.readouterr().out.splitlines()[1] == "runs/report/report.html"
    assert parse(["report", *map(str, runs), "--out", "here"]).run() == 0
    assert Path("here/report.csv").is_file()


def test_a_published_number_stands_beside(runs: list[Path], tmp_path: Path) -> None:
    for file in runs[0].glob("eval-*.json"):
        before = file.read_text()
        content = json.loads(before)
        content["config"]["task"]["way"], content["config"]["task"]["shots"] = 5, 1
        try:
            file.write_text(resealed(content))
            written = report_runs(runs, tmp_path / "out")
        finally:
            file.write_text(before)
        assert "97.68% ± 0.04" in written[1].read_text(encoding="utf-8")
        assert "97.68% ± 0.04" in written[2].read_text(encoding="utf-8")
        assert ',97.68,"Nichol et al. 2018, table 2"' in written[3].read_text(encoding="utf-8")


def test_what_cannot_stand_side_by_side_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a run is named twice"):
        report_runs([runs[0], runs[1] / ".." / "one|run"], tmp_path / "out")
    with pytest.raises(RunError, match="nowhere"):
        report_runs([runs[0], tmp_path / "nowhere"], tmp_path / "out")
    waves = small_config(outer_steps=1, dataset="sine", way=1, execution="auto")
    train(waves, tmp_path / "sine")
    with pytest.raises(ConfigError, match="some of these runs label images and some fit functions"):
        report_runs([runs[0], tmp_path / "sine"], tmp_path / "out")
    with pytest.raises(ConfigError, match="is a run folder, whose own report would be replaced"):
        report_runs(runs, runs[0])
    assert not (tmp_path / "out").exists()
