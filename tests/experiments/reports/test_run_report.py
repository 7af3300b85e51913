"""The report of a run: what is in its files, what is not, and what is said of damaged ones."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.easy import small_config
from tests.runs import resealed
from torchreptile.core.config import Config
from torchreptile.core.errors import RunError
from torchreptile.data.episodes import Episodes
from torchreptile.data.splits import MissingSplit, Splits
from torchreptile.experiments.reports import draw_curves, draw_episode, report, sample_episodes
from torchreptile.training.checkpoint import load_checkpoint, save_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.train import train
from torchreptile.training.weights import load_weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, splits: Splits) -> Path:
    """A short run with one evaluation on test classes."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    with pytest.MonkeyPatch.context() as patch:
        for module in ("training.setup", "training.evaluation.evaluate"):
            patch.setattr(f"torchreptile.{module}.load_splits", lambda task: splits)
        train(small_config(outer_steps=3, monitor_every=1, eval_steps=1), folder)
        evaluate(folder, episodes=20)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run, to be read and damaged; it is not its curves that are looked at."""
    png = draw_curves(Config(), [])
    monkeypatch.setattr(
        "torchreptile.experiments.reports.run_report.draw_curves", lambda config, metrics, dark=False: png
    )
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_files_and_their_contents(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchreptile.experiments.reports.run_report.draw_curves", draw_curves)
    written = report(run)
    assert written == [run / name for name in ("curves.png", "report.html", "report.md", "report.csv")]
    with Image.open(written[0]) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500
    page = written[1].read_text(encoding="utf-8")
    assert f'<iframe srcdoc="{escape(page)}"' in written._repr_html_()
    (file,) = run.glob("eval-*.json")
    result = Evaluation.from_json(file.read_text()).result
    assert str(result.transductive) in page
    assert str(result.inductive) in page
    for words in ("transductive", "inductive", "3-way 1-shot", "3 of 3 outer steps", "validation classes"):
        assert words in page
    assert "Episode 4" in page
    assert not list(run.glob(".*.tmp"))
    # It asks nothing of the world outside.
    assert "<script" not in page
    assert "<link" not in page
    assert "url(" not in page
    assert "http://" not in page
    assert "https://" not in page
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', page)
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)


def test_published_number_and_difference(run: Path) -> None:
    """An evaluation rewritten as 5-way, where 97.68 is published: 98% is 0.32 above."""
    (file,) = run.glob("eval-*.json")
    content = json.loads(file.read_text())
    content["config"]["task"]["way"] = 5
    content["result"]["transductive"]["mean"] = 0.98
    file.write_text(resealed(content))
    page = report(run)[1].read_text(encoding="utf-8")
    assert "97.68% ± 0.04" in page
    assert "+0.32" in page


def with_checkpoint(run: Path, **changes: Any) -> None:
    """Change values of the last checkpoint."""
    save_checkpoint(dataclasses.replace(load_checkpoint(run / "last.pt"), **changes), run / "last.pt")


def test_what_differs_from_the_preset_is_marked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, changed = load_weights(run), Config().replace(outer_steps=7, seed=3)
    monkeypatch.setattr("torchreptile.experiments.reports.run_report.load_weights", lambda path: loaded)
    (run / "config.json").write_text(changed.to_json())
    with_checkpoint(run, config=changed)
    next(run.glob("eval-*.json")).unlink()  # of other settings
    page = report(run)[1].read_text(encoding="utf-8")
    marked = re.findall(r'<tr class="differs"><td><code>(\w+)', page)
    assert marked == ["outer_steps", "seed"]
    assert "preset: 100,000" in page


def test_names_are_escaped(run: Path) -> None:
    hostile = run.rename(run.with_name("<b>x"))
    environment = json.loads((hostile / "env.json").read_text())
    environment["command"] = "<script>alert(1)</script>"
    del environment["checksum"]  # as of earlier versions
    (hostile / "env.json").write_text(json.dumps(environment))
    next(hostile.glob("eval-*.json")).unlink()  # so that the command with the folder's name is shown
    page = report(hostile)[1].read_text(encoding="utf-8")
    assert "<b>" not in page
    assert "<script" not in page
    assert "<h1>&lt;b&gt;x</h1>" in page


def test_without_evaluations_the_command_is_shown(run: Path) -> None:
    next(run.glob("eval-*.json")).unlink()
    assert f"reptile evaluate {run}" in report(run)[1].read_text(encoding="utf-8")


def test_run_in_training(run: Path) -> None:
    """No measurement yet, then one whose line is still being written."""
    with_checkpoint(run, metrics_bytes=0, metrics_checksum=0)
    for content in ("", '{"step": 1, "lo'):
        (run / "metrics.jsonl").write_text(content)
        assert "there is no measurement yet" in report(run)[1].read_text(encoding="utf-8")


@pytest.mark.parametrize(("tested", "label"), [(True, "test classes"), (False, "training classes")])
def test_without_validation_classes(
    run: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch, tested: bool, label: str
) -> None:
    """Test classes are looked at only once they have been measured."""
    monkeypatch.setattr(
        "torchreptile.training.evaluation.evaluate.load_splits",
        lambda task: Splits(splits.train, MissingSplit("no val"), splits.test),
    )
    if not tested:
        next(run.glob("eval-*.json")).unlink()
    assert f"These are <strong>{label}</strong>" in report(run)[1].read_text(encoding="utf-8")


def damage_evaluation(run: Path) -> str:
    file = next(run.glob("eval-*.json"))
    file.write_text(file.read_text()[:100])
    return file.name


def evaluation_of_words(run: Path) -> str:
    file = next(run.glob("eval-*.json"))
    content = json.loads(file.read_text())
    content["result"]["transductive"]["mean"] = "high"
    file.write_text(json.dumps(content))
    return file.name


def evaluation_of_another_digit(run: Path) -> str:
    file = next(run.glob("eval-*.json"))
    text = file.read_text()
    file.write_text(text.replace('"mean": 0.', '"mean": 0.9', 1))
    assert file.read_text() != text
    return file.name


def damage_metrics(run: Path) -> str:
    (run / "metrics.jsonl").write_text('{"step": 1, "lo\n{"step": 2, "loss": 1}\n')
    return "metrics.jsonl"


def metrics_of_something_else(run: Path) -> str:
    (run / "metrics.jsonl").write_text("[1, 2]\n")
    return "metrics.jsonl: line 1"


def change(file: Path, old: str, new: str) -> None:
    """Replace the first ``old`` of a file, which must have one."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def another_digit_of_the_metrics(run: Path) -> str:
    change(run / "metrics.jsonl", '"loss": 0.', '"loss": 0.9')
    return "metrics.jsonl: it is not what was written"


def metrics_cut_off(run: Path) -> str:
    (run / "metrics.jsonl").write_text("")
    return "bytes are missing"


def settings_of_another_run(run: Path) -> str:
    config = Config.from_json((run / "config.json").read_text())
    (run / "config.json").write_text(config.replace(seed=config.run.seed + 1).to_json())
    return "config.json: not the settings of last.pt (seed"


def sessions_that_are_numbers(run: Path) -> str:
    (run / "env.json").write_text('{"torch": "2", "resumed": [1]}')
    return "env.json: missing or damaged (resumed is not a list of sessions)"


def another_digit_of_the_environment(run: Path) -> str:
    change(run / "env.json", '"threads": ', '"threads": 1')
    return "env.json: missing or damaged (its content is not what was written"


def damage_environment(run: Path) -> str:
    (run / "env.json").write_text("{")
    return "env.json"


def no_checkpoint(run: Path) -> str:
    (run / "last.pt").unlink()
    return "last.pt"


def no_settings(run: Path) -> str:
    (run / "config.json").unlink()
    (run / "last.pt").unlink()
    return "not a run folder"


@pytest.mark.parametrize(
    "damage",
    [
        damage_evaluation,
        evaluation_of_words,
        evaluation_of_another_digit,
        damage_metrics,
        metrics_of_something_else,
        another_digit_of_the_metrics,
        metrics_cut_off,
        settings_of_another_run,
        sessions_that_are_numbers,
        another_digit_of_the_environment,
        damage_environment,
        no_checkpoint,
        no_settings,
    ],
)
def test_damage_is_named_in_one_line(run: Path, damage) -> None:
    named = damage(run)
    with pytest.raises(RunError) as caught:
        report(run)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        report(tmp_path / "nowhere")


@pytest.mark.parametrize(("count", "dark"), [(0, True), (1, True), (1000, False)])
def test_curves_of_any_length(count: int, dark: bool) -> None:
    """One mode, one split and a loss that is not a number must not stop the picture."""
    metrics = [
        {"step": step, "loss": float("nan") if step % 2 else 1.0, "train_transductive": 0.5,
         "train_transductive_ci95": 0.1}
        for step in range(1, count + 1)
    ]  # fmt: skip
    with Image.open(io.BytesIO(draw_curves(Config(), metrics, dark=dark))) as picture:
        picture.load()
        assert picture.size[0] == 1280


def test_a_wrong_prediction_is_looked_for(run: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Perfect answers to the first eight episodes, then a wrong one: it takes the fourth place."""
    from torchreptile.algorithms.base import Predictions
    from torchreptile.algorithms.gradient_based import GradientBased

    asked = []

    def predict(self, state, episodes, generator) -> Predictions:
        asked.append(episodes)
        answers = episodes.query_y.clone()
        if len(asked) == 3:
            answers[1, 0] = 2
        return Predictions(answers, answers)

    monkeypatch.setattr(GradientBased, "predict", predict)
    assert splits.val is not None
    shown = sample_episodes(load_weights(run), splits.val)
    assert len(asked) == 3
    assert [episode.searched_for for episode in shown] == [False, False, False, True]
    assert shown[3].predicted.tolist() == [[2, 1, 2]]
    assert shown[3].episode.query_x.equal(asked[2].query_x[1:2])


def test_classes_are_named_rightly(run: Path, splits: Splits) -> None:
    """Every support image is found among the images of the class that is named."""
    store = splits.val
    assert store is not None
    for shown in sample_episodes(load_weights(run), store):
        assert len(set(shown.class_names)) == 3
        for image, name in zip(shown.episode.support_x[0], shown.class_names, strict=True):
            own = store.select([store.class_names.index(name)]).images
            assert (own == (image * 255).round().to(torch.uint8)).flatten(1).all(1).any()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 84, 84)])
@pytest.mark.parametrize(("way", "shots", "queries"), [(2, 1, 1), (5, 7, 6), (30, 1, 1)])
def test_episode_pictures(shape: tuple[int, int, int], way: int, shots: int, queries: int) -> None:
    """Right and wrong answers give different pictures of one size."""
    labels = [torch.arange(way).repeat_interleave(n).expand(1, -1) for n in (shots, queries)]
    images = [torch.full((1, way * n, *shape), 0.5) for n in (shots, queries)]
    episodes = Episodes(images[0], labels[0], images[1], labels[1], classes=torch.zeros(1, way, dtype=torch.int64))
    right = draw_episode(episodes, labels[1])
    wrong = draw_episode(episodes, (labels[1] + 1) % way, dark=True)
    with Image.open(io.BytesIO(right)) as one, Image.open(io.BytesIO(wrong)) as other:
        assert one.size == other.size
        assert one.tobytes() != other.tobytes()
