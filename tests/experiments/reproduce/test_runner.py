"""Reproducing the papers: what is carried out, what is kept, and what is taken up again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import in_process
from tests.easy import easy_store, skip_without_native
from tests.runs import is_there, resealed, stop_at
from torchreptile.cli import parse
from torchreptile.cli.commands.reproduce import reproduce
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError, DataError, RunError
from torchreptile.data.splits import MissingSplit, Splits
from torchreptile.experiments.reports.reproduction_tables import to_markdown
from torchreptile.experiments.reproduce import EXPERIMENTS, Experiment, find_experiment
from torchreptile.experiments.reproduce.experiment import Arm, Measurement
from torchreptile.experiments.reproduce.result import Reproduced, read_reproduced
from torchreptile.experiments.reproduce.result_file import RESULT
from torchreptile.experiments.reproduce.runner import ExperimentOptions, TrainingsError, _shares, run_experiment
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import train

SMALL: dict[str, Any] = {
    "dataset": "glyphs", "split_scheme": "default", "way": 2, "train_shots": 4, "inner_steps": 2, "inner_batch": 3,
    "meta_batch": 2, "outer_steps": 4, "eval_steps": 2, "eval_batch": 2, "monitor_episodes": 2, "execution": "loop",
}  # fmt: skip


def small_row(**changes: Any) -> Experiment:
    """Reptile's row, made small."""
    config = Config().replace(**(SMALL | changes))
    measurements = (Measurement(1, 2, 2), Measurement(3, 1, 2))
    return replace(EXPERIMENTS["omniglot-5way"], arms=(Arm("reptile", "Reptile", config, measurements),), episodes=6)


@pytest.fixture
def in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings run in the tests' process."""
    monkeypatch.setattr("torchreptile.experiments.reproduce.runner.do_jobs", in_process.do_jobs)


def run_on_cpu(one: Experiment, out: Path, **options: Any) -> Reproduced | None:
    """Run an experiment on the CPU, without progress."""
    return run_experiment(one, out, ExperimentOptions(device="cpu", **options), quiet=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reproduced]:
    """A small row with two seeds, side by side."""
    out = tmp_path_factory.mktemp("row") / "out"
    reproduced = run_on_cpu(small_row(), out, seeds=2, at_once=2)
    assert reproduced is not None
    return out, reproduced


def test_cells_are_those_of_the_runs(finished: tuple[Path, Reproduced]) -> None:
    out, reproduced = finished
    assert [one.seed for one in reproduced.trainings] == [0, 1]
    for one in reproduced.trainings:
        run = out / f"reptile-seed{one.seed}"
        assert one.config == RunFolder(run).config()
        assert one.outer_steps == load_checkpoint(run / "last.pt").step == 4
        assert one.curve == RunFolder(run).metrics()
        for shots, steps in ((1, 2), (3, 1)):
            its = evaluate(run, shots=shots, eval_steps=steps, eval_batch=2, episodes=6, seed=one.seed).result
            measured = {cell.measure: cell for cell in one.cells if cell.shots == shots}
            assert {name: (cell.mean, cell.ci95) for name, cell in measured.items()} == {
                name: (accuracy.mean, accuracy.ci95) for name, accuracy in its.measures().items()
            }


def test_the_file_holds_all_of_it(finished: tuple[Path, Reproduced]) -> None:
    out, reproduced = finished
    assert read_reproduced(out / RESULT) == reproduced
    assert json.loads((out / RESULT).read_text())["trainings"][0]["environment"]["threads"] >= 1


def test_what_is_there_is_not_done_again_which_is_said(
    finished: tuple[Path, Reproduced], capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = finished
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*.pt")}
    again = run_experiment(small_row(), out, ExperimentOptions(seeds=1, device="cpu"))
    assert again is not None
    assert f"measured before; delete {out / RESULT}" in capsys.readouterr().err
    assert [one.seed for one in again.trainings] == [0, 1]  # a second seed is no less there for not being asked for
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.pt")} == before


@pytest.mark.usefixtures("in_one_process")
def test_other_classes_are_measured_beside_the_ones_before(finished: tuple[Path, Reproduced]) -> None:
    out, _ = finished
    both = run_on_cpu(small_row(), out, seeds=1, split="val")
    assert both is not None
    assert {(cell.split, cell.shots) for cell in both.trainings[0].cells} == {
        ("val", 1), ("val", 3), ("test", 1), ("test", 3),
    }  # fmt: skip
    assert {cell.split for cell in both.trainings[1].cells} == {"test"}


@pytest.mark.usefixtures("in_one_process")
def test_other_episodes_are_measured_beside_the_ones_before_and_never_mixed_with_them(
    finished: tuple[Path, Reproduced],
) -> None:
    out, _ = finished
    both = run_on_cpu(small_row(), out, seeds=1, episodes=4)
    assert both is not None
    counts = {(cell.shots, cell.measure, cell.episodes): spread.seeds for _, cell, spread in both.spreads()
              if cell.split == "test"}  # fmt: skip
    assert counts[1, "transductive", 6] == 2
    assert counts[1, "transductive", 4] == 1


@pytest.mark.usefixtures("in_one_process")
def test_cells_of_other_weights_do_not_stay(tmp_path: Path) -> None:
    assert run_on_cpu(small_row(), tmp_path, seeds=1, split="val") is not None
    shutil.rmtree(tmp_path / "reptile-seed0")
    again = run_on_cpu(small_row(), tmp_path, seeds=1)  # trained once more
    assert again is not None
    assert {cell.split for cell in again.trainings[0].cells} == {"test"}


@pytest.mark.usefixtures("in_one_process")
def test_a_killed_training_goes_on_and_comes_to_the_same(finished: tuple[Path, Reproduced], tmp_path: Path) -> None:
    _, uninterrupted = finished
    run = tmp_path / "reptile-seed0"
    config = small_row().arms[0].config.replace(device="cpu")
    train(config, run, stop_at(2))
    (run / "env.json").unlink()  # killed right after config.json was written, too
    again = run_on_cpu(small_row(), tmp_path, seeds=1)
    assert again is not None
    assert [(cell.conditions, cell.measure, cell.mean) for cell in again.trainings[0].cells] == [
        (cell.conditions, cell.measure, cell.mean) for cell in uninterrupted.trainings[0].cells
    ]
    assert again.trainings[0].environment["threads"] >= 1


def weights(run: Path) -> torch.Tensor:
    return torch.cat([p.flatten() for p in load_checkpoint(run / "last.pt").state.params.values()])


@pytest.mark.usefixtures("in_one_process")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_training_alone_and_among_others_has_equal_bits(tmp_path: Path, two_threads: None) -> None:
    """And one that was begun with another number of threads keeps it."""
    row = small_row(outer_steps=2, inner_steps=1)
    row = replace(row, arms=(replace(row.arms[0], measurements=(Measurement(1, 1, 2),)),), episodes=2)
    assert run_on_cpu(row, tmp_path / "alone", seeds=1) is not None
    assert run_on_cpu(row, tmp_path / "both", seeds=2) is not None
    alone, both, begun = (tmp_path / name / "reptile-seed0" for name in ("alone", "both", "begun"))
    assert torch.equal(weights(alone), weights(both))
    assert load_checkpoint(both / "last.pt").division.threads == 2
    torch.set_num_threads(1)
    config = row.arms[0].config.replace(device="cpu")
    train(config, tmp_path / "one thread")
    assert not torch.equal(weights(alone), weights(tmp_path / "one thread"))  # so the test can fail
    train(config, begun, stop_at(1))
    torch.set_num_threads(2)
    assert run_on_cpu(row, tmp_path / "begun", seeds=1) is not None
    assert torch.equal(weights(begun), weights(tmp_path / "one thread"))
    assert "resumed" not in RunFolder(begun).environment()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Run the test with two threads of torch."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_are_shared_where_they_change_no_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_native()
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    for execution, seeds, at_once, shares in (
        ("native", 1, 0, (1, 8)), ("native", 4, 0, (4, 2)), ("native", 4, 2, (2, 4)),
        ("loop", 1, 0, (1, 8)), ("loop", 4, 0, (1, 8)), ("loop", 4, 2, (2, 8)),
    ):  # fmt: skip
        one, options = small_row(execution=execution), ExperimentOptions(seeds=seeds, at_once=at_once, device="cpu")
        options = replace(options, execution=execution)
        assert _shares(one, options.jobs(one, tmp_path), options) == shares
        two_arms = replace(one, arms=one.arms * 2)
        planned = _shares(two_arms, options.jobs(two_arms, tmp_path), options)
        assert execution == "native" or planned == (at_once or 2, 4)


@pytest.mark.usefixtures("in_one_process")
def test_what_was_measured_before_a_kill_is_taken_up(tmp_path: Path) -> None:
    assert run_on_cpu(small_row(), tmp_path, seeds=1) is not None
    (tmp_path / RESULT).unlink()
    files = sorted((tmp_path / "reptile-seed0").glob("eval-*.json"))
    assert len(files) == 2
    content = json.loads(files[0].read_text())
    files[0].write_text(resealed(content | {"seconds": 1234.0 + content["seconds"]}))
    files[1].write_text("{")  # killed while it was written elsewhere: measured again
    again = run_on_cpu(small_row(), tmp_path, seeds=1)
    assert again is not None
    assert sorted(cell.seconds > 1000 for cell in again.trainings[0].cells) == [False, False, True, True]


@pytest.mark.usefixtures("in_one_process")
def test_a_run_may_have_looked_at_itself_more_often(tmp_path: Path) -> None:
    first = run_on_cpu(small_row(monitor_every=1), tmp_path, seeds=1)
    assert first is not None
    (tmp_path / RESULT).unlink()
    again = run_on_cpu(small_row(monitor_every=2), tmp_path, seeds=1)
    assert again is not None
    assert again.trainings == first.trainings  # measurements taken up, too


@pytest.mark.usefixtures("in_one_process")
def test_other_settings_and_other_experiments_in_the_same_folder_are_refused(finished: tuple[Path, Reproduced]) -> None:
    out, _ = finished
    with RunFolder(out).locked(), pytest.raises(RunError, match="in use"):
        run_on_cpu(small_row(), out)
    same = run_on_cpu(small_row(execution="auto"), out, seeds=1, execution="grouped")
    assert same is not None  # how it is computed is no part of what is learned
    with pytest.raises(RunError, match=r"other settings \(reptile-seed0: inner_lr 0.001, not 0.5\); name another"):
        run_on_cpu(small_row(inner_lr=0.5), out)
    elsewhere = run_on_cpu(small_row(), out.parent / "elsewhere", seeds=1)
    assert elsewhere is not None
    shutil.rmtree(out.parent / "elsewhere" / "reptile-seed0")  # its result.json stays, which must not be mixed in
    with pytest.raises(RunError, match=r"reptile-seed0: inner_lr 0.001, not 0.5\); name another folder"):
        run_on_cpu(small_row(inner_lr=0.5), out.parent / "elsewhere")
    with pytest.raises(RunError, match="holds omniglot-5way with --budget 1"):
        run_on_cpu(small_row(), out, share=0.5)
    for damaged in ("{}", "[1]", '{"format": "torchreptile-result-1", "trainings": 3}'):
        (out / "damaged").mkdir(exist_ok=True)
        (out / "damaged" / RESULT).write_text(damaged)
        with pytest.raises(RunError, match=r"damaged/result\.json: not readable"):
            run_on_cpu(small_row(), out / "damaged")


def test_missing_test_classes_are_refused_before_any_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = easy_store(6, 4)
    for val, shown in (
        (store, "no test pictures; --split val measures on"),
        (MissingSplit("none"), "no test pictures$"),
    ):
        splits = Splits(store, val, MissingSplit("no test pictures"))
        monkeypatch.setattr("torchreptile.data.loading.load_splits", lambda task, splits=splits: splits)
        with pytest.raises(DataError, match=shown):
            run_experiment(small_row(), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(RunError, match="out: cannot be used as a run folder"):
        run_experiment(small_row(), tmp_path / "out", quiet=True)


@pytest.mark.parametrize(("name", "value"), [("seeds", -1), ("at_once", -2), ("episodes", 1)])
def test_what_cannot_be_carried_out_is_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        run_experiment(small_row(), tmp_path, ExperimentOptions(**{name: value}), quiet=True)


@pytest.mark.usefixtures("in_one_process")
def test_a_failed_training_is_named_when_the_others_are_done(tmp_path: Path) -> None:
    one = small_row()
    too_wide = replace(one.arms[0], name="wide", config=one.arms[0].config.replace(way=2000))
    with pytest.raises(RunError, match=r"wide-seed0: .* too few for 2000-way tasks"):
        run_on_cpu(replace(one, arms=(too_wide, one.arms[0])), tmp_path, at_once=2)
    assert [taken.arm for taken in read_reproduced(tmp_path / RESULT).trainings] == ["reptile"]


@pytest.mark.usefixtures("in_one_process")
def test_what_was_done_beside_a_failure_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = small_row()
    too_wide = replace(one.arms[0], name="wide", config=one.arms[0].config.replace(way=2000))
    monkeypatch.setitem(EXPERIMENTS, one.name, replace(one, arms=(too_wide, one.arms[0])))
    with pytest.raises(TrainingsError, match=r"wide-seed0: .* too few for 2000-way tasks"):
        reproduce(one.name, tmp_path, ExperimentOptions(seeds=1, at_once=1, device="cpu"))
    assert "1 training missing (wide-seed0)" in capsys.readouterr().out
    assert "1 training missing (wide-seed0)" in (tmp_path / "result.md").read_text()
    assert (tmp_path / "result.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("in_one_process")
def test_a_note_and_the_commands_stay(tmp_path: Path) -> None:
    assert run_on_cpu(small_row(), tmp_path, seeds=1) is not None
    before = replace(read_reproduced(tmp_path / RESULT), note="from elsewhere", commands=["another command"])
    (tmp_path / RESULT).write_text(before.to_json())
    assert run_on_cpu(small_row(), tmp_path, seeds=1) == before  # nothing was done
    more = run_on_cpu(small_row(), tmp_path, seeds=2)
    assert more is not None
    assert more.note == "from elsewhere"
    assert len(more.commands) == 2


def test_drawn_functions_have_no_splits(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split is val, but sine has no classes to split; leave it out"):
        run_experiment(find_experiment("sine"), tmp_path, ExperimentOptions(split="val"), quiet=True)


@pytest.mark.parametrize("words", [["--budget", "0.1"], ["--list", "--seeds", "2"], ["sine", "--list"]])
def test_what_is_not_used_is_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="give a NAME, or only --list"):
        parse(["reproduce", *words]).run()


@pytest.mark.parametrize("what", ["config.json", "notes.txt"])  # a run folder, and a user's own
def test_a_folder_with_something_else_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / what).write_text("{}")
    with pytest.raises(RunError, match=f"holds something else \\({what}, ...\\); name another folder with --out"):
        run_experiment(small_row(), tmp_path, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == [what]


def test_a_signal_saves_all_trainings_and_leaves_no_process(tmp_path: Path) -> None:
    words = ["sine", "--seeds", "1", "--at-once", "2", "--out", str(tmp_path / "out"), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "torchreptile", "reproduce", *words], stderr=subprocess.PIPE, text=True
    )
    runs = [RunFolder(tmp_path / "out" / f"{arm}-seed0") for arm in ("reptile", "maml")]
    deadline = time.monotonic() + 120
    while not all(run.last.is_file() and run.metrics() for run in runs):  # both have come to their first measurement
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "run the same command again to resume" in shown
    for run in runs:
        assert load_checkpoint(run.last).step >= run.metrics()[-1]["step"]
    left = {int(pid) for pid in found.stdout.split()}
    assert len(left) >= 2
    while left:  # Python's own helper of processes ends a moment after them
        assert time.monotonic() < deadline
        left = {pid for pid in left if is_there(pid)}


def test_a_row_stands_beside_what_was_published(finished: tuple[Path, Reproduced]) -> None:
    _, reproduced = finished
    cells = [replace(cell, dataset="omniglot", way=5, mean=0.95, ci95=0.001) for cell in reproduced.trainings[0].cells]
    shown = to_markdown(replace(reproduced, trainings=[replace(reproduced.trainings[0], cells=cells)]), small_row())
    assert "| Reptile | 5-way 1-shot, test classes, inductive | 95.00% ± 0.10 | 95.39% ± 0.09 | -0.39 |" in shown
