"""What was reproduced: which findings hold, and what tables and pictures show."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.easy import REPOSITORY
from tests.runs import resealed
from torchreptile.cli.commands.reproduce import print_reproduced
from torchreptile.core.errors import RunError
from torchreptile.experiments.reports.reproduction_figures import draw_reproduced, figure_of
from torchreptile.experiments.reports.reproduction_tables import measurements, to_markdown
from torchreptile.experiments.reproduce import EXPERIMENTS, find_experiment
from torchreptile.experiments.reproduce.experiment import Arm
from torchreptile.experiments.reproduce.findings import Finding, findings, sweep
from torchreptile.experiments.reproduce.minibatch_overlap import IMAGES, SWEEPS, points
from torchreptile.experiments.reproduce.result import Cell, Reproduced, Spread, TrainedArm, Wave, read_reproduced
from torchreptile.experiments.reproduce.result_file import RESULT
from torchreptile.experiments.reproduce.runner import ExperimentOptions, run_experiment
from torchreptile.experiments.reproduce.seed_statistics import contrast, difference

CELL = Cell("reptile", "omniglot", "test", 5, 5, "inductive", 0.8, 0.004, 1000, 5, 25, 0, "last", 1.0, "a processor")


def taken(arm: Arm, accuracy: float, seed: int = 0, curve: list[float] | None = None) -> TrainedArm:
    task = arm.config.task
    where = ("reptile", "omniglot", "test", task.way, task.shots)
    cells = [
        Cell(*where, measure, accuracy, 0.004, 1000, 5, 25, seed, "last", 1.0, "a processor, 1 thread, torch 2")
        for measure in ("transductive", "inductive")
    ]  # fmt: skip
    lines = [{"step": step, "val_inductive": value} for step, value in enumerate(curve or [])]
    environment = {"processor": "a processor", "threads": 1, "torch": "2", "gpu": None}
    return TrainedArm(arm.name, arm.label, arm.config.replace(seed=seed), 4, 10.0, environment, cells, lines)


def made_up(name: str, accuracy_of: dict[str, float], seeds: int = 1) -> Reproduced:
    one = find_experiment(name)
    its = [
        taken(arm, accuracy_of.get(arm.name, accuracy_of.get(arm.label, 0.9)), seed, [0.5, 0.7, 0.8])
        for arm in one.arms
        for seed in range(seeds)
    ]
    return Reproduced(name, 0.5, its, ["reptile reproduce ..."])


AS_PUBLISHED = {
    "last-of-1": 0.4, "last-of-2": 0.85, "mean-of-2": 0.7, "sum-of-2": 0.83, "last-of-3": 0.86, "mean-of-3": 0.75,
    "sum-of-3": 0.88, "last-of-4": 0.87, "mean-of-4": 0.8, "sum-of-4": 0.91,
}  # fmt: skip


def found_of(reproduced: Reproduced) -> list[Finding]:
    return findings(reproduced, EXPERIMENTS[reproduced.name])


def verdicts(found: list[Finding]) -> list[bool | None]:
    return [its.holds for its in found]


def test_findings_of_combinations_go_by_the_differences() -> None:
    assert verdicts(found_of(made_up("gradient-combinations", AS_PUBLISHED))) == [True] * 6
    other = AS_PUBLISHED | {"sum-of-2": 0.85, "last-of-1": 0.95, "sum-of-4": 0.7, "mean-of-2": 0.84}
    found = found_of(made_up("gradient-combinations", other))
    assert verdicts(found) == [False, None, False, False, False, False]
    assert "g2 is ahead by +0.0 ± 0.6 points" in found[1].numbers
    near = AS_PUBLISHED | {"last-of-1": 0.66, "sum-of-3": 0.832, "last-of-4": 0.925}
    found = found_of(made_up("gradient-combinations", near))
    assert verdicts(found) == [False, True, True, None, None, True]
    assert found_of(Reproduced("gradient-combinations", 1, [], [])) == []


def overlapping(drop: float) -> dict[str, float]:
    """Accuracies of the arms that show an image again to a shared tail, by cycling; by replacement half of it."""
    found = {}
    for arm in find_experiment("minibatch-overlap").arms:
        seen = arm.config.inner.inner_steps * arm.config.inner.inner_batch
        if arm.label.startswith("shared tail") and seen > IMAGES:
            found[arm.name] = 0.9 - (drop if arm.label.endswith("cycling") else drop / 2)
    return found


def test_findings_of_overlap_go_by_the_sweeps() -> None:
    assert verdicts(found_of(made_up("minibatch-overlap", overlapping(0.3)))) == [True] * 10
    found = found_of(made_up("minibatch-overlap", overlapping(0.0)))
    assert verdicts(found) == [None, None, True, True, None, None, True, True, None, None]
    part = made_up("minibatch-overlap", {})
    assert found_of(replace(part, trainings=part.trainings[:5])) == []
    assert found_of(replace(part, trainings=part.trainings[:-1])) == []


def test_sweeps_have_the_points_they_should() -> None:
    for swept, values in SWEEPS.items():
        lines = sweep(made_up("minibatch-overlap", {}), swept)
        assert {line: list(its) for line, its in lines.items()} == {
            line: its for (name, line), its in points().items() if name == swept
        }
        assert list(lines["shared tail, cycling"]) == list(values)
    assert sorted(sweep(made_up("minibatch-overlap", {}), "outer_step_size")) == ["shared tail, cycling"]


def test_seeds_are_compared_one_by_one() -> None:
    """What a seed has in common with itself, its episodes above all, is no reason to doubt a difference."""
    low = Spread.over([replace(CELL, seed=seed, mean=mean) for seed, mean in enumerate((0.80, 0.90, 0.70))])
    high = Spread.over([replace(CELL, seed=seed, mean=mean) for seed, mean in enumerate((0.82, 0.91, 0.72))])
    gap = difference(low, high)
    assert gap.value == pytest.approx(0.05 / 3)
    assert gap.margin == pytest.approx(4.30 * statistics.stdev([0.02, 0.01, 0.02]) / 3**0.5)
    assert gap.more is True
    assert contrast((1, high), (-1, high)).margin == 0
    alone = difference(Spread.over([CELL]), Spread.over([replace(CELL, mean=0.81)]))
    assert alone.margin == pytest.approx(math.hypot(0.004, 0.004))


def test_findings_go_by_what_was_measured_on_most_episodes() -> None:
    complete = made_up("gradient-combinations", AS_PUBLISHED)
    few = [
        replace(one, cells=[*one.cells, *(replace(cell, episodes=20, mean=0.5) for cell in one.cells)])
        for one in complete.trainings
    ]
    both = replace(complete, trainings=few)
    assert found_of(both) == found_of(complete)
    first = [replace(one, cells=one.cells[::-1]) for one in few]
    assert found_of(replace(complete, trainings=first)) == found_of(complete)


def test_a_cell_of_a_later_seed_is_not_lost() -> None:
    arm = find_experiment("omniglot-5way").arms[0]
    first, second = taken(arm, 0.8), taken(arm, 0.9, seed=1)
    second = replace(second, cells=[*second.cells, replace(second.cells[0], split="val", mean=0.7)])
    spreads = list(Reproduced("omniglot-5way", 1.0, [first, second], []).spreads())
    assert [(cell.split, spread.seeds) for _, cell, spread in spreads] == [("test", 2), ("test", 2), ("val", 1)]


def test_an_interval_is_over_episodes_or_seeds_whichever_is_wider() -> None:
    arm = find_experiment("gradient-combinations").arms[0]
    cells = [taken(arm, accuracy, seed).cells[1] for seed, accuracy in enumerate((0.8, 0.9))]
    spread = Spread.over(cells)
    assert (spread.mean, spread.seeds) == (pytest.approx(0.85), 2)
    assert spread.ci95 == pytest.approx(0.004 / 2**0.5)
    assert spread.between == pytest.approx(0.1 / 2**0.5)
    assert spread.margin == pytest.approx(12.71 * 0.1 / 2)  # Student's t for one degree of freedom
    gap = difference(Spread.over(cells[:1]), spread)
    assert (gap.value, gap.margin) == (pytest.approx(0.05), pytest.approx(math.hypot(0.004, spread.margin)))
    assert (gap.more, gap.at_most_little_less) == (None, None)
    assert difference(Spread.over(cells[:1]), Spread.over(cells[1:])).more is True


def test_combinations_are_drawn_as_means_over_seeds_with_a_band() -> None:
    complete, which = made_up("gradient-combinations", AS_PUBLISHED, seeds=2), find_experiment("gradient-combinations")
    second = [
        replace(one, curve=[{**line, "val_inductive": 0.1} for line in one.curve[1:]] if one.seed else one.curve)
        for one in complete.trainings
    ]
    for axes in figure_of(replace(complete, trainings=second), which).get_axes():
        assert [line.get_label() for line in axes.get_lines()] == [arm.label for arm in which.arms]
        for line in axes.get_lines():  # the steps at which both seeds were looked at
            assert list(line.get_xdata()) == [1, 2]
            assert list(line.get_ydata()) == pytest.approx([(70 + 10) / 2, (80 + 10) / 2])
        assert len(axes.collections) == len(which.arms)
    for axes in figure_of(made_up("gradient-combinations", AS_PUBLISHED), which).get_axes():
        assert not axes.collections


def test_sweeps_are_drawn_and_tabulated_value_by_value() -> None:
    its = {arm.name: 0.3 + number / 100 for number, arm in enumerate(find_experiment("minibatch-overlap").arms)}
    complete = made_up("minibatch-overlap", its)
    panels = figure_of(complete, find_experiment("minibatch-overlap")).get_axes()
    for axes, setting, measured in zip(
        panels, SWEEPS, measurements(complete, find_experiment("minibatch-overlap")), strict=True
    ):
        lines = sweep(complete, setting)
        drawn = {bars.get_label(): bars.lines[0] for bars in axes.containers}
        for label, line in lines.items():
            assert list(drawn[label].get_xdata()) == list(line)
            assert list(drawn[label].get_ydata()) == pytest.approx([100 * spread.mean for spread in line.values()])
            column = measured.head.index(label)
            in_table = {float(row[0]): row[column] for row in measured.rows if row[column]}
            assert in_table == {value: f"{100 * spread.mean:.2f}% ± 0.40" for value, spread in line.items()}
    assert "Sweep of outer step size at inner steps 4, images in an inner mini-batch 100" in measured.what
    assert measured.what.endswith("test classes, each query alone, 1,000 episodes")


def test_rows_are_drawn_beside_what_was_published() -> None:
    complete = made_up("omniglot-5way", {"reptile": 0.97})
    (axes,) = figure_of(complete, find_experiment("omniglot-5way")).get_axes()
    here, published = (bars.lines[0].get_xdata() for bars in axes.containers)
    assert list(here) == pytest.approx([97.0, 97.0])
    assert list(published) == [97.68, 95.39]


def test_what_is_not_whole_says_so_and_finds_nothing() -> None:
    which, complete = find_experiment("gradient-combinations"), made_up("gradient-combinations", AS_PUBLISHED, seeds=2)
    part = replace(complete, trainings=complete.trainings[:-1])
    assert complete.missing(which) == []
    assert part.missing(which) == ["sum-of-4-seed1"]
    assert "**incomplete: 1 training missing (sum-of-4-seed1)**" in to_markdown(part, which)
    assert len(Reproduced(which.name, 1.0, [], []).missing(which)) == 10
    on_val = [replace(one, cells=[replace(cell, split="val") for cell in one.cells]) for one in complete.trainings]
    some = replace(
        complete, trainings=[replace(on_val[0], cells=[*on_val[0].cells, *complete.trainings[0].cells]), *on_val[1:]]
    )
    assert some.split == "val"  # of which there are more
    assert len(found_of(some)) == 6


def test_a_cell_measured_otherwise_than_published_is_no_cell_of_the_row() -> None:
    which = find_experiment("mini-imagenet-5way")
    five = which.arms[0].measurements[1]
    cell = replace(CELL, eval_steps=five.eval_steps, eval_batch=five.eval_batch)
    training = replace(taken(which.arms[0], 0.6), cells=[cell])
    assert replace(made_up(which.name, {}), share=1.0, trainings=[training]).departure(which) == ""
    other = replace(training, cells=[replace(cell, eval_batch=5)])
    shown = replace(made_up(which.name, {}), share=1.0, trainings=[other]).departure(which)
    assert shown.startswith("reptile-seed0: evaluated with {'shots': 5, 'eval_steps': 50, 'eval_batch': 5, ")


@pytest.mark.parametrize("name", ["gradient-combinations", "minibatch-overlap", "omniglot-5way"])
def test_results_are_drawn_and_tabulated(name: str) -> None:
    reproduced = made_up(name, AS_PUBLISHED, seeds=2)
    assert draw_reproduced(reproduced, find_experiment(name)).startswith(b"\x89PNG")
    shown = to_markdown(reproduced, find_experiment(name))
    assert "50% of the published outer steps" in shown
    assert "trained on a processor, 1 thread, torch 2" in shown
    assert ("published (test" in shown) == (name == "omniglot-5way")  # a figure's trainings are not the table's
    printed = StringIO()
    print_reproduced(reproduced, find_experiment(name), Console(file=printed, width=200))
    assert re.search(r"9[01]\.00% ± ", printed.getvalue())


def test_findings_of_waves_go_by_the_errors_and_what_is_said_before() -> None:
    def with_errors(
        after: dict[str, float], before: float = 4.25, ci95: float = 0.01, says: float = 0.001
    ) -> Reproduced:
        its = []
        for arm in EXPERIMENTS["sine"].arms:
            one, errors = taken(arm, 0.0), {"mse_before": before, "mse": after[arm.name]}
            cells = [replace(one.cells[0], measure=name, mean=mean, ci95=ci95) for name, mean in errors.items()]
            values = [says, -says] if arm.name == "joint" else [0.3, 0.3]
            its.append(replace(one, cells=cells, waves=[Wave([0.0, 1.0], [0.0, 0.0], values, values, [], [])]))
        return Reproduced("sine", 1.0, its, [])

    mse = {"reptile": 0.1, "maml": 0.1, "joint": 3.7, "fresh": 2.7}
    found = found_of(with_errors(mse))
    assert verdicts(found) == [True, True, True]
    assert "is 0.001 (Reptile 0.3, MAML (meta-batch 5) 0.3, random initialisation 0.3)" in found[1].numbers
    other = with_errors(mse | {"reptile": 1.0, "joint": 0.5}, before=3.0, says=0.2)
    assert verdicts(found_of(other)) == [False] * 3
    assert verdicts(found_of(with_errors(mse, ci95=3.0))) == [None, True, None]


def test_waves_are_drawn_from_the_file(tmp_path: Path) -> None:
    sine = EXPERIMENTS["sine"]
    quick = sine.changed(lambda config: config.replace(outer_steps=2))
    quick = replace(quick, arms=quick.arms[:3:2])
    reproduced = run_experiment(quick, tmp_path, ExperimentOptions(seeds=1, episodes=4), quiet=True)
    assert reproduced is not None
    assert [len(one.by_step) for one in reproduced.trainings] == [33, 33]
    assert True not in verdicts(findings(reproduced, quick))[:2]
    figure = figure_of(read_reproduced(tmp_path / RESULT), sine)
    *fits, errors = figure.get_axes()
    waves = [one.waves[row] for row in (0, 1) for one in reproduced.trainings]
    for axes, wave in zip(fits, waves, strict=True):
        drawn = {str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines()}
        assert drawn == {
            "truth": wave.truth, "before": wave.before, "after 32 inner steps": wave.after, "known points": wave.known_y
        }  # fmt: skip
    for line, one in zip(errors.get_lines(), reproduced.trainings, strict=True):
        assert list(line.get_ydata()) == [mean for mean, _ in one.by_step]


def test_a_changed_digit_or_an_impossible_cell_of_a_result_is_refused(tmp_path: Path) -> None:
    text = (REPOSITORY / "results" / "omniglot-5way.json").read_text(encoding="utf-8")
    file = tmp_path / "result.json"
    file.write_text(text, encoding="utf-8")
    complete = read_reproduced(file)
    file.write_text(complete.to_json(), encoding="utf-8")
    assert read_reproduced(file) == complete
    changed = complete.to_json().replace('"mean": 0.97', '"mean": 0.98', 1)
    assert changed != complete.to_json()
    file.write_text(changed, encoding="utf-8")
    with pytest.raises(RunError, match=r"result\.json: not readable .*its checksum differs"):
        read_reproduced(file)
    for name, value in (("mean", 1.5), ("ci95", -1.0), ("episodes", 2.5), ("way", "five"), ("seconds", True)):
        content = json.loads(text)
        content["trainings"][0]["cells"][0][name] = value
        file.write_text(resealed(content), encoding="utf-8")
        with pytest.raises(RunError, match=rf"result\.json: not readable .*{name}"):
            read_reproduced(file)
