"""Predictions that are not finite numbers: never an answer, never a number, and counted episode by episode."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.easy import TINY, easy_store, small_config
from torchreptile.algorithms.build import build_algorithm
from torchreptile.cli.main import main
from torchreptile.core.config.presets import preset
from torchreptile.core.errors import ConfigError
from torchreptile.core.json_text import json_text
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.data.splits import Splits
from torchreptile.models.losses import NO_ANSWER, answers
from torchreptile.training.callbacks import Callback
from torchreptile.training.evaluation.divergence import DivergedEvaluationError
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.evaluation.measure import measure_episodes
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import Accuracy, Fit, Result, SquaredError
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import train
from torchreptile.training.weights import load_weights


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_logits_that_are_not_finite_name_no_class(bad: float, place: int) -> None:
    logits = torch.tensor([[0.5, 3.0, 1.0], [0.5, 3.0, 1.0]])
    logits[0, place] = bad
    assert answers(logits, torch.zeros(2, dtype=torch.int64)).tolist() == [NO_ANSWER, 1]
    excluded = torch.tensor([[-math.inf, 0.5, 0.1]])  # the logarithm of a probability of 0 is a sound logit
    assert answers(excluded, torch.zeros(1, dtype=torch.int64)).tolist() == [1]


class WhiteBlinds(nn.Module):
    """Overflows on images that have a white pixel."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(TINY[1] * TINY[2], outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)) / (x.flatten(1).amax(1, keepdim=True) < 1)


def test_exactly_the_episodes_whose_predictions_are_not_finite_are_counted() -> None:
    """Class 2 alone has white pixels: its queries have no answer, count as wrong, and the others are as ever."""
    grey = easy_store(8, shape=TINY)
    images = grey.images.clamp(max=200)
    images[40:60, 0, 0, 0] = 255
    store = replace(grey, images=images)
    config = small_config(eval_steps=0, queries=2, execution="loop")
    network = WhiteBlinds(3)
    algorithm = build_algorithm(config, TINY, torch.device("cpu"), network=lambda shape, outputs: network)
    state = algorithm.begin(0)
    measured = measure_episodes(algorithm, state, EpisodeSampler(store, 3, 1, 2), 30, seed=3)
    drawn = EpisodeSampler(store, 3, 1, 2).sample(100, torch.Generator().manual_seed(3))[:30]
    blinded = drawn.classes.repeat_interleave(2, dim=1) == 2
    assert 0 < int(blinded.any(1).sum()) < 30
    assert torch.equal(measured.diverged, blinded.any(1))
    for labels in measured.predicted.values():
        assert torch.equal(labels == NO_ANSWER, blinded)
        right = (labels == drawn.query_y) & ~blinded
        torch.testing.assert_close(measured.scores["inductive"], right.double().mean(1))
    result = measured.result()
    assert result.diverged == int(blinded.any(1).sum())
    assert f"diverged in {result.diverged} of 30 episodes" in result.short()
    assert str(result).endswith(f"diverged in {result.diverged} of 30 episodes")


DIVERGING = preset("sine-maml", "maml").replace(
    inner_lr=50.0, outer_steps=2, meta_batch=2, monitor_episodes=3, monitor_every=1, device="cpu"
)


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on sine waves whose inner rate makes adaptation overflow."""
    folder = tmp_path_factory.mktemp("waves") / "run"
    train(DIVERGING, folder)
    return folder


def test_an_evaluation_that_diverged_is_an_error_and_valid_json(waves: Path) -> None:
    with pytest.raises(DivergedEvaluationError) as raised:
        evaluate(waves, episodes=5, device="cpu")
    assert str(raised.value) == (
        "run: diverged in 5 of 5 episodes, where predictions are not finite numbers: inner_lr is 50 and eval_steps 10; "
        "try a smaller inner_lr, such as 5, or fewer eval_steps"
    )
    evaluation = raised.value.evaluation
    text = (waves / evaluation.file_name).read_text()
    content = json.loads(text, parse_constant=pytest.fail)
    assert (content["result"]["diverged"], content["result"]["mse"]["mean"]) == (5, None)
    assert content["result"]["mse_before"]["mean"] > 0
    again = Evaluation.from_json(text)
    assert math.isnan(again.result.measures()["mse"].mean)
    assert again.result.diverged == 5
    assert again.to_json() + "\n" == text
    assert str(again.result).startswith("mse diverged, before adaptation ")


def test_the_advice_works_and_a_rate_that_has_no_effect_is_refused(waves: Path) -> None:
    result = evaluate(waves, episodes=5, device="cpu", inner_lr=0.001)
    assert result.config.inner.inner_lr == 0.001
    assert result.result.diverged == 0
    assert load_weights(waves).config.inner.inner_lr == 50  # the run's own settings stay
    with pytest.raises(ConfigError, match="inner_lr is 0"):
        evaluate(waves, episodes=5, device="cpu", inner_lr=0.0)


def test_metrics_stay_json(waves: Path) -> None:
    lines = (waves / "metrics.jsonl").read_text().splitlines()
    contents = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert {content["val_mse"] for content in contents} == {None}
    assert all("val_mse" not in line and line["val_mse_before"] > 0 for line in RunFolder(waves).metrics())


def test_a_training_whose_adaptation_diverges_warns_once(tmp_path: Path) -> None:
    class Warnings(Callback):
        def __init__(self) -> None:
            self.messages: list[str] = []

        def on_warning(self, message: str) -> None:
            self.messages.append(message)

    warnings = Warnings()
    train(DIVERGING, tmp_path / "run", callbacks=[warnings])
    assert [message for message in warnings.messages if "diverged" in message] == [
        "adaptation diverged in 3 of 3 validation episodes, where predictions are not finite numbers: inner_lr is 50 "
        "and eval_steps 10; try a smaller inner_lr, such as 5, or fewer eval_steps"
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_the_evaluation_and_fails(
    waves: Path, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--episodes", "4", "--device", "cpu", *["--json"] * as_json]
    monkeypatch.setattr(sys, "argv", ["reptile", "evaluate", str(waves), *flags])
    with pytest.raises(SystemExit) as exit_code:
        main()
    assert exit_code.value.code == 2
    out, err = capsys.readouterr()
    assert err.splitlines()[-1].startswith("reptile: run: diverged in 4 of 4 episodes")
    assert "nan" not in out.lower()
    if as_json:
        assert json.loads(out, parse_constant=pytest.fail)["result"]["diverged"] == 4


def test_images_too(tmp_path: Path, easy_data: Splits) -> None:
    train(small_config(outer_steps=1), tmp_path / "run")
    weights = load_weights(tmp_path / "run")
    broken = {name: p * math.nan if name == "head.bias" else p for name, p in weights.state.params.items()}
    assert any(p.isnan().any() for p in broken.values())
    with pytest.raises(DivergedEvaluationError, match="diverged in 6 of 6 episodes"):
        evaluate(replace(weights, folder=None, state=replace(weights.state, params=broken)), episodes=6, device="cpu")


def test_json_text() -> None:
    content = {"a": [1.5, math.nan, (math.inf, -math.inf)], "b": {"c": "NaN", "d": True, "e": None}}
    expected = {"a": [1.5, None, [None, None]], "b": {"c": "NaN", "d": True, "e": None}}
    assert json.loads(json_text(content), parse_constant=pytest.fail) == expected
    assert json_text(expected, indent=2) == json.dumps(expected, indent=2)
    assert json_text("ä", ascii_only=False) == '"ä"'


def test_results_without_a_count_are_of_an_earlier_version() -> None:
    """And mean that nothing diverged."""
    from torchreptile.training.evaluation.results import measured_from

    old = {"transductive": None, "inductive": {"mean": 0.5, "ci95": 0.1, "episodes": 9}, "extra_metrics": {}}
    assert measured_from(old) == Result(None, Accuracy(0.5, 0.1, 9))
    error = {"mean": 0.5, "ci95": 0.1, "episodes": 9}
    assert measured_from({"mse": error, "mse_before": error}) == Fit(*[SquaredError(0.5, 0.1, 9)] * 2)
    with pytest.raises(TypeError):
        measured_from({"mse": error, "mse_before": error, "other": error})
