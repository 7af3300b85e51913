"""Comparing algorithms: what is measured against the runs themselves, what is kept, and what a signal leaves."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from rich.console import Console

from tests import in_process
from torchreptile import cli
from torchreptile.algorithms.rows import mann
from torchreptile.cli.commands.compare import print_comparison
from torchreptile.core.config.presets import preset
from torchreptile.core.distributed import jobs
from torchreptile.core.errors import ConfigError, DataError, RunError
from torchreptile.data.splits import MissingSplit, Splits
from torchreptile.experiments import compare as comparing
from torchreptile.experiments.compare import compare
from torchreptile.experiments.comparison import Comparison
from torchreptile.experiments.reports.comparison_plot import draw_comparison
from torchreptile.training.checkpoint import load_checkpoint, save_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate

PRESET = "glyphs-1shot-5way"
SMALL: dict[str, Any] = {
    "outer_steps": 2, "way": 2, "train_shots": 3, "inner_steps": 2, "inner_batch": 3, "meta_batch": 2,
    "eval_steps": 2, "eval_batch": 2, "monitor_episodes": 2, "execution": "grouped", "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms with two seeds each, compared; the first training alone has a process, as all would."""
    out, processes = tmp_path_factory.mktemp("compared") / "out", iter([jobs.do_jobs])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "torchreptile.training.in_subprocess.do_jobs", lambda *work: next(processes, in_process.do_jobs)(*work)
        )
        assert compare(PRESET, ["reptile", "foml"], 2, out, episodes=8, quiet=True, **SMALL) is not None
    return out


def again(out: Path, **changes: Any) -> Comparison | None:
    return compare(PRESET, ["reptile", "foml"], 2, out, episodes=8, quiet=True, **(SMALL | changes))


def test_a_row_is_the_mean_of_its_seeds_and_its_interval_that_of_all_episodes(folder: Path) -> None:
    comparison = again(folder)
    assert comparison is not None
    assert [(one.algorithm, one.seed) for one in comparison.trained] == [
        ("reptile", 0), ("reptile", 1), ("foml", 0), ("foml", 1),
    ]  # fmt: skip
    for row in comparison.rows():
        runs = [evaluate(folder / f"{row.algorithm}-{seed}", seed=seed, checkpoint="best") for seed in (0, 1)]
        means = [run.result.inductive.mean for run in runs]
        widths = [run.result.inductive.ci95 for run in runs]
        assert row.accuracy["inductive"] == pytest.approx(statistics.fmean(means))
        assert row.between["inductive"] == pytest.approx(abs(means[0] - means[1]) / math.sqrt(2))
        assert row.ci95["inductive"] == pytest.approx(math.sqrt(widths[0] ** 2 + widths[1] ** 2) / 2)
        params = load_checkpoint(folder / f"{row.algorithm}-0" / "last.pt").state.params
        assert row.parameters == sum(p.numel() for p in params.values())
        assert row.steps == 2
        assert 0 < row.adapt_ms < 10_000
        assert 50 < row.peak_mib < 10_000


def test_what_is_there_is_kept_and_only_the_rest_is_trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    monkeypatch.setattr(comparing, "train_in_subprocess", lambda config, run, quiet: trained.append(run.path.name))
    first = again(folder)
    assert first is not None
    assert not trained
    assert json.loads((folder / "comparison.json").read_text())["rows"][1]["algorithm"] == "foml"
    assert compare(PRESET, ["reptile", "foml"], 3, folder, episodes=8, quiet=True, **SMALL) is None  # stopped
    assert trained == ["reptile-2"]


def test_other_classes_and_fewer_algorithms_take_nothing_away(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    first = again(out)
    assert first is not None
    monkeypatch.setattr(comparing, "train_in_subprocess", None)  # nothing is trained
    elsewhere = compare(PRESET, ["foml"], 2, out, split="val", episodes=8, quiet=True, **SMALL)
    assert elsewhere is not None
    assert [one.evaluation.split for one in elsewhere.trained] == ["val", "val"]
    assert [one.peak_mib for one in elsewhere.trained] == [one.peak_mib for one in first.trained[2:]]
    saved = json.loads((out / "comparison.json").read_text())["trained"]
    names = [(one["evaluation"]["config"]["method"]["algorithm"], one["evaluation"]["split"]) for one in saved]
    assert names == [("foml", "val")] * 2 + [("reptile", "test")] * 2 + [("foml", "test")] * 2
    more = compare(PRESET, ["foml"], 2, out, episodes=6, quiet=True, **SMALL)  # of the same trainings
    assert more is not None
    assert [one.evaluation.config.evaluation.eval_episodes for one in more.trained] == [6, 6]
    assert [one.steps for one in more.trained] == [2, 2]
    assert again(out) == replace(first, environment=ANY)
    for lose in (lambda run: save_checkpoint(replace(load_checkpoint(run), step=1), run), Path.unlink):
        lose(out / "foml-1" / "last.pt")
        with pytest.raises(TypeError):  # what is not whole, or gone, is trained again
            again(out)


def test_what_cannot_be_measured_is_refused_before_any_training(
    tmp_path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = Splits(splits.train, MissingSplit("it has no val classes"), splits.test)
    monkeypatch.setattr("torchreptile.data.loading.load_splits", lambda task: without)
    with pytest.raises(DataError, match="no val classes"):
        compare("omniglot-1shot-5way", ["reptile"], 1, tmp_path / "out", split="val", quiet=True, outer_steps=2)
    assert not (tmp_path / "out").exists()


def test_memory_of_a_run_that_was_over_is_not_known(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchreptile.training.in_subprocess.do_jobs", in_process.do_jobs)
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    (out / "comparison.json").unlink()
    comparison = again(out)
    assert comparison is not None
    assert [row.peak_mib for row in comparison.rows()] == [0, 0]
    printed = StringIO()
    print_comparison(comparison, Console(file=printed, width=160))
    (line,) = [line for line in printed.getvalue().splitlines() if line.startswith("foml")]
    assert line.split()[-1] == "-"


def test_a_budget_is_said_and_anneals_to_nothing(folder: Path) -> None:
    comparison = again(folder)
    assert comparison is not None
    assert comparison.budget == "2 outer steps of training each"
    configs = comparing.plan(PRESET, ["reptile", "maml", "protonet"], 1, 8, {})
    assert [config.outer.outer_step_size_final for config in configs] == [0, 1e-3, 1e-3]
    for budget in ({"max_minutes": 1.0}, {"outer_steps": 500}):
        planned = comparing.plan(PRESET, ["reptile", "maml", "protonet"], 1, 8, budget)
        assert [config.outer.outer_step_size_final for config in planned] == [0, 0, 0]
    evaluation = comparison.trained[0].evaluation
    for changes, message in (
        ({"max_minutes": 2.5}, "2.5 minutes or 2 outer steps of training each"),
        ({"outer_steps": 100_000}, "as many outer steps as published"),
    ):
        changed = replace(evaluation, config=evaluation.config.replace(**changes))
        one = replace(comparison.trained[0], evaluation=changed)
        assert Comparison(PRESET, [one], {}).budget == message


def test_it_is_drawn(folder: Path) -> None:
    comparison = again(folder)
    assert comparison is not None
    assert draw_comparison(comparison).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Algorithms to which not everything applies: MANN has no transductive accuracy, scratch learns nothing."""
    out = tmp_path_factory.mktemp("unlike")
    names, published = ["mann", "scratch", "pretrained"], mann.ROW.change_image_settings
    memory = {"mann_units": 10, "mann_slots": 4, "mann_width": 5}
    with pytest.MonkeyPatch.context() as patch:
        smaller = replace(mann.ROW, change_image_settings=lambda config: published(config) | memory)
        patch.setattr(mann, "ROW", smaller)
        patch.setattr("torchreptile.training.in_subprocess.do_jobs", in_process.do_jobs)
        comparison = compare(PRESET, names, 2, out, episodes=8, quiet=True, **SMALL)
        again = compare(PRESET, names, 2, out, episodes=8, quiet=True, **SMALL)  # read back from the file
    assert comparison is not None
    saved = json.loads((out / "comparison.json").read_text())
    assert saved["rows"] == json.loads(comparison.to_json())["rows"]
    assert again == replace(comparison, environment=ANY)
    return comparison


def test_what_does_not_apply_is_left_out(unlike: Comparison) -> None:
    mann, scratch, pretrained = unlike.rows()
    presentations = [f"presentation {number}" for number in (1, 2, 3, 4, 5, 10)]
    assert list(mann.accuracy) == ["inductive", *presentations]
    assert mann.extra_metrics == presentations
    seeds = [one.evaluation.result.extra_metrics["presentation 2"] for one in unlike.trained[:2]]
    assert mann.accuracy["presentation 2"] == pytest.approx((seeds[0].mean + seeds[1].mean) / 2)
    assert mann.ci95["presentation 2"] == pytest.approx(math.hypot(seeds[0].ci95, seeds[1].ci95) / 2)
    for row in (scratch, pretrained):
        assert list(row.accuracy) == ["transductive", "inductive"]
        assert not row.extra_metrics
    assert scratch.parameters == 0
    assert pretrained.parameters > 10_000


def test_all_are_measured_with_as_many_queries() -> None:
    """Meta-LSTM's publication has 15 per class, and transductive accuracy depends on how many share a batch."""
    assert preset(PRESET, "meta-lstm").evaluation.queries == 15
    plan = comparing.plan(PRESET, ["reptile", "meta-lstm"], 1, 8, {})
    assert [config.evaluation.queries for config in plan] == [1, 1]
    assert [config.evaluation.queries for config in comparing.plan(PRESET, ["meta-lstm"], 1, 8, {"queries": 3})] == [3]


def test_what_learns_nothing_takes_one_step_whatever_is_asked_for() -> None:
    plan = comparing.plan(PRESET, ["scratch", "reptile"], 1, 8, {"outer_steps": 500})
    assert [config.outer.outer_steps for config in plan] == [1, 500]


def test_the_table_has_a_dash_where_nothing_applies_and_a_line_of_further_measures(
    unlike: Comparison,
) -> None:
    printed = StringIO()
    print_comparison(unlike, Console(file=printed, width=160))
    words = {line.split()[0]: line.split() for line in printed.getvalue().splitlines() if line.strip()}
    assert words["mann"][1] == "-"
    assert words["mann"][2] == f"{100 * unlike.rows()[0].accuracy['inductive']:.2f}"
    assert words["mann"][5].startswith("-/")
    assert "presentation 10" in " ".join(words["mann:"])
    assert words["scratch"][1] != "-"
    assert words["scratch"][8] == "-"  # steps
    assert words["pretrained"][8] == "2"


def test_a_mode_that_does_not_apply_is_not_drawn(unlike: Comparison) -> None:
    assert draw_comparison(unlike).startswith(b"\x89PNG")
    alone = replace(unlike, trained=unlike.trained[:2])  # MANN by itself has but one mode
    assert draw_comparison(alone).startswith(b"\x89PNG")


def test_other_settings_in_the_same_folder_are_refused(folder: Path) -> None:
    with pytest.raises(RunError, match=r"other settings \(outer_steps 2, not 3\); name another folder"):
        again(folder, outer_steps=3)
    with pytest.raises(RunError, match="compares on glyphs-1shot-5way"):
        compare("glyphs-5shot-5way", ["reptile"], 1, folder, quiet=True, **SMALL)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seeds is 0"):
        compare(PRESET, ["reptile"], 0, tmp_path)
    with pytest.raises(ConfigError, match="name each once"):
        compare(PRESET, ["reptile", "reptile"], 1, tmp_path)


def test_fewer_outer_steps_than_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="outer_steps is -3; it must be at least 0"):
        cli.parse(["compare", PRESET, "--algorithms", "reptile", "--outer-steps", "-3"]).run()


def test_a_failed_training_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"reptile-0: .* too few for 2000-way tasks"):
        compare(PRESET, ["reptile"], 1, tmp_path, quiet=True, **(SMALL | {"way": 2000}))


def test_a_signal_saves_the_training_and_leaves_no_process(tmp_path: Path) -> None:
    words = [PRESET, "--algorithms", "reptile", "--max-minutes", "10", "--out", str(tmp_path), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "torchreptile", "compare", *words], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "execution" not in process.stderr.readline():  # training has begun
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "run the same command again to resume" in message
    assert load_checkpoint(tmp_path / "reptile-0" / "last.pt").step >= 0
    children = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert not [pid for pid in children.stdout.split() if int(pid) != os.getpid()]
