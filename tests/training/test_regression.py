"""Functions through the whole package: an outer step against a plain loop, runs, measurements, reports, refusals."""

from __future__ import annotations

import copy
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.easy import FIT_FUNCTIONS, small_config
from tests.functions import small_sine, write_folder
from tests.runs import assert_same_run, stop_at
from torchreptile import cli
from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.config import Config
from torchreptile.core.config.algorithm_table import algorithm_names
from torchreptile.core.config.presets import PRESETS, preset
from torchreptile.core.errors import ConfigError, RunError
from torchreptile.data.functions.sine import sines
from torchreptile.data.minibatches import minibatches
from torchreptile.data.samplers import SineSampler
from torchreptile.data.splits import Splits
from torchreptile.experiments.reports import report
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.function_fits import fit_functions
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import Fit
from torchreptile.training.outer_step import OuterStep
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import resume, train
from torchreptile.training.weights import load_weights, save_weights

CPU = torch.device("cpu")


def test_an_outer_step_on_sine_waves_is_a_plain_loops_in_float64() -> None:
    """Three tasks of the published preset, one after another with torch.optim.SGD: to 1e-12."""
    config = preset("sine").replace(meta_batch=3)
    algorithm = build_algorithm(config, (1,), CPU, targets=1)
    state = algorithm.begin(0).mapped(torch.Tensor.double)
    sampler = SineSampler(sines("sine"), 50, 0, torch.float64)
    step = OuterStep(algorithm, sampler, config.outer, torch.Generator().manual_seed(7), record=False)
    after, loss = step(state, 0.1)

    generator = torch.Generator().manual_seed(7)
    tasks = SineSampler(sines("sine"), 50, 0, torch.float64).sample(3, generator)
    batches = minibatches(3, 50, 10, 5, False, generator)
    net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)).double()
    for mine, its in zip(net.parameters(), state.params.values(), strict=True):
        mine.data.copy_(its)
    ends, losses = [], []
    for task in range(3):
        copied = copy.deepcopy(net)
        optimizer = torch.optim.SGD(copied.parameters(), lr=0.02)
        for chosen in batches[task]:
            x, y = tasks.support_x[task][chosen], tasks.support_y[task][chosen]
            error = ((copied(x) - y) ** 2).mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
            losses.append(float(error.detach()))
        ends.append([p.detach() for p in copied.parameters()])
    for number, (name, p) in enumerate(after.params.items()):
        start = state.params[name]
        expected = start + 0.1 * (sum(end[number] for end in ends) / 3 - start)
        torch.testing.assert_close(p, expected, rtol=0, atol=1e-12)
    assert float(loss) == pytest.approx(sum(losses) / len(losses), abs=1e-12)


@pytest.mark.parametrize("algorithm", FIT_FUNCTIONS)
def test_stopped_resumed_measured_written_and_reported(tmp_path: Path, algorithm: str) -> None:
    config = small_sine(algorithm, outer_steps=4)
    train(config, tmp_path / "uninterrupted")
    assert train(config, tmp_path / "run", stop_at(3)).interrupted
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")

    loaded, weights = load_weights(tmp_path / "run"), tmp_path / "weights.safetensors"
    save_weights(loaded, weights, {})
    measured = evaluate(tmp_path / "run", device="cpu")
    assert isinstance(measured.result, Fit)
    assert evaluate(weights, device="cpu").result == measured.result
    assert Evaluation.from_json(measured.to_json()).result == measured.result
    page = next(file for file in report(tmp_path / "run") if file.suffix == ".html").read_text()
    for words in (str(measured.result.mse), str(measured.result.mse_before), "A sample of functions", "figure only"):
        assert words in page
    answers = re.sub(r"<[^>]*>", " ", page[page.index("</style>") : page.index('id="settings"')])
    assert not re.search("accuracy|classes|transductive", answers, re.IGNORECASE)
    (line, *_) = RunFolder(tmp_path / "run").metrics()
    names = {"val_mse", "val_mse_ci95", "val_mse_before", "val_mse_before_ci95"}
    assert names == {name for name in line if "mse" in name}
    assert not any("transductive" in name for name in line)


def test_before_adaptation_means_the_weights_as_they_are() -> None:
    """Both errors of an evaluation, counted anew from the adapted and the unadapted network's outputs."""
    config = small_sine(eval_batch=0)
    algorithm = build_algorithm(config, (1,), CPU, targets=1)
    state = algorithm.begin(0)
    episodes = SineSampler(sines("sine"), 5, 7).sample(3, torch.Generator().manual_seed(0))
    answers = algorithm.predict(state, episodes, torch.Generator().manual_seed(1))
    module = copy.deepcopy(algorithm.blueprint.module)
    module.load_state_dict(state.params)
    assert answers.transductive is None
    assert answers.before is not None
    with torch.no_grad():
        torch.testing.assert_close(answers.before, torch.stack([module(x) for x in episodes.query_x]))
    for task in range(3):
        mine = copy.deepcopy(module)
        optimizer = torch.optim.SGD(mine.parameters(), lr=config.inner.inner_lr)
        for _ in range(config.evaluation.eval_steps):
            optimizer.zero_grad()
            nn.functional.mse_loss(mine(episodes.support_x[task]), episodes.support_y[task]).backward()
            optimizer.step()
        with torch.no_grad():
            torch.testing.assert_close(answers.inductive[task], mine(episodes.query_x[task]))


def test_the_best_checkpoint_has_the_lowest_error(tmp_path: Path) -> None:
    train(small_sine(monitor_every=1, outer_step_size=3.0), tmp_path / "run")
    errors = {line["step"]: line["val_mse"] for line in RunFolder(tmp_path / "run").metrics()}
    best = load_checkpoint(tmp_path / "run" / "best.pt")
    assert best.best == -min(errors.values())
    assert errors[best.step] == min(errors.values())
    assert load_checkpoint(tmp_path / "run" / "last.pt").best == best.best


def test_own_functions_keep_their_scale_and_are_measured_in_their_units(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "plants")
    config = small_sine(table=str(folder), queries=4, meta_batch=2, outer_steps=20, outer_step_size=0.5)
    train(config, tmp_path / "run")
    loaded = load_weights(tmp_path / "run")
    assert loaded.scale is not None
    assert load_weights(tmp_path / "run", checkpoint="best").scale == loaded.scale
    result = evaluate(tmp_path / "run").result
    assert isinstance(result, Fit)
    assert result.own_mse is not None
    squared = loaded.scale.y_deviation[0] ** 2
    assert result.own_mse.mean == pytest.approx(squared * result.mse.mean, rel=1e-5)
    assert result.mse.mean < result.mse_before.mean
    named = evaluate(tmp_path / "run", table=str(folder))  # a folder that has moved: the same tasks, the same scale
    assert named.result == result
    save_weights(loaded, tmp_path / "w.safetensors", {})
    assert load_weights(tmp_path / "w.safetensors").scale == loaded.scale
    page = next(file for file in report(tmp_path / "run") if file.suffix == ".html").read_text()
    assert "in the table&#39;s units" in page
    metrics = RunFolder(tmp_path / "run").metrics()[-1]
    assert {"train_mse", "val_mse", "val_own_mse"} <= set(metrics)

    (folder / "plant00.csv").rename(folder / "plant77.csv")
    with pytest.raises(RunError, match=r"was trained on other functions than .*plants holds now"):
        evaluate(tmp_path / "run")
    with pytest.raises(RunError, match="was trained on other functions than plants holds now"):
        resume(tmp_path / "run")


def test_errors_by_step_begin_before_and_end_after_adaptation(tmp_path: Path) -> None:
    train(small_sine(), tmp_path / "run")
    loaded = load_weights(tmp_path / "run")
    fitted = fit_functions(loaded, sines("sine"), 6)
    assert len(fitted.by_step) == 1 + loaded.config.evaluation.eval_steps
    for values, error in ((fitted.before, fitted.by_step[0]), (fitted.after, fitted.by_step[-1])):
        assert float((values - fitted.episodes.query_y).square().mean()) == pytest.approx(error.mean, rel=1e-5)
    in_between = loaded.config.replace(eval_steps=2)  # mini-batches are drawn alike, whatever comes after them
    shorter = fit_functions(replace(loaded, config=in_between), sines("sine"), 6)
    assert fitted.by_step[:3] == shorter.by_step


@pytest.mark.parametrize("algorithm", sorted(set(algorithm_names()) - set(FIT_FUNCTIONS)))
def test_what_labels_images_refuses_functions_in_one_line(algorithm: str) -> None:
    with pytest.raises(
        ConfigError, match=f"algorithm is {algorithm}, which labels images; .*reptile, foml, maml"
    ) as one:
        PRESETS["sine"].config.replace(algorithm=algorithm)
    assert "\n" not in str(one.value)


def test_other_refusals(tmp_path: Path, easy_data: Splits) -> None:
    with pytest.raises(ConfigError, match="transductive is set, but the tasks of sine are functions"):
        small_sine(transductive=True)
    with pytest.raises(ConfigError, match="mlp_units is 32, but omniglot has images"):
        Config().replace(mlp_units=32)
    with pytest.raises(ConfigError, match="way is 5, but the tasks of sine are functions"):
        Config().replace(dataset="sine")
    train(small_sine(outer_steps=1), tmp_path / "run")
    train(small_config(outer_steps=1), tmp_path / "images")
    with pytest.raises(ConfigError, match=r"run was trained on functions \(sine\), and glyphs has images"):
        evaluate(tmp_path / "run", dataset="glyphs")
    with pytest.raises(ConfigError, match=r"images was trained on images \(omniglot\), and table has functions"):
        evaluate(tmp_path / "images", table="plants")
    with pytest.raises(ConfigError, match="way is 3, but the tasks of sine"):
        evaluate(tmp_path / "run", way=3)


def test_mamls_waves_may_test_what_reptiles_trained(tmp_path: Path) -> None:
    train(small_sine(outer_steps=1), tmp_path / "run")
    assert math.isfinite(evaluate(tmp_path / "run", dataset="sine-maml").result.score(False))


def test_a_network_of_ones_own_fits_functions(tmp_path: Path) -> None:
    """With BatchNorm even, whose queries are then each in a batch with the known points."""

    def net(shape: tuple[int], outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(*shape, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs))

    train(small_sine(), tmp_path / "run", network=net)
    assert math.isfinite(evaluate(tmp_path / "run", network=net).result.score(False))
    wrong = r"points \(2, 1\) give \(2, 2\); they must give \(2, 1\), 1 numbers per point"
    with pytest.raises(ConfigError, match=wrong):
        train(small_sine(), tmp_path / "other", network=lambda shape, outputs: nn.Linear(1, 2))


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "plants")
    small = [
        "--outer-steps",
        "2",
        "--mlp-units",
        "8",
        "--eval-steps",
        "2",
        "--monitor-episodes",
        "2",
        "--device",
        "cpu",
    ]
    assert cli.parse(["train", "--table", "plants", *small, "--out", "run"]).run() == 0
    assert json.loads(Path("run/config.json").read_text())["task"]["dataset"] == "table"
    assert cli.parse(["evaluate", "run", "--episodes", "20"]).run() == 0
    out = capsys.readouterr().out
    assert "10-point, test tasks of plants" in out
    assert "before adaptation" in out
    assert cli.parse(["train", "--dataset", "sine", *small, "--dry-run"]).run() == 0
    assert "drawn anew every time" in capsys.readouterr().out
    assert cli.parse(["train", "--table", "plants", "--algorithm", "maml", *small, "--dry-run"]).run() == 0
    assert "tasks: train 12, val 4, test 4" in capsys.readouterr().out
    assert cli.parse(["presets"]).run() == 0
    assert "figure only" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="data show draws images, and sine has functions"):
        cli.parse(["data", "show", "sine"]).run()


def test_comparing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--outer-steps", "2", "--max-minutes", "0", "--episodes", "8", "--device", "cpu", "--out"]
    command = ["compare", "sine", "--algorithms", "reptile", "scratch", *words, str(tmp_path / "out")]
    assert cli.parse(command).run() == 0
    out = capsys.readouterr().out
    assert "mean squared error after and before adaptation" in out
    rows = json.loads((tmp_path / "out" / "comparison.json").read_text())["rows"]
    assert [set(row["accuracy"]) for row in rows] == [{"mse", "mse_before"}] * 2
    assert (tmp_path / "out" / "comparison.png").read_bytes()[:4] == b"\x89PNG"


def test_presets_say_what_was_published() -> None:
    sine, maml = preset("sine"), preset("sine-maml", "maml")
    assert (sine.inner.inner_lr, sine.inner.inner_batch, sine.inner.inner_steps) == (0.02, 10, 5)
    assert (sine.outer.outer_steps, sine.outer.outer_step_size, sine.outer.meta_batch) == (30_000, 0.1, 1)
    assert (sine.evaluation.eval_steps, sine.task.shots, sine.task.train_shots) == (32, 10, 50)
    assert (maml.inner.inner_lr, maml.inner.inner_steps, maml.outer.meta_batch) == (0.01, 1, 25)
    assert (maml.network.mlp_units, maml.network.mlp_activation, maml.task.shots) == (40, "relu", 10)
    for name in ("sine", "sine-maml"):
        for algorithm in FIT_FUNCTIONS:
            assert preset(name, algorithm).task.regression
