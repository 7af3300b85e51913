"""What a training left behind: from its run folder, from a weights file and its card, and the refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.easy import TINY, load_script, small_config
from tests.runs import sealed_again
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.errors import RunError
from torchreptile.data.splits import Splits
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import train
from torchreptile.training.weights import MetaWeights, load_weights, save_weights, shipped_weights, weights_card


def some_weights(optimizer: str = "adam") -> MetaWeights:
    generator = torch.Generator().manual_seed(0)
    # A kernel whose memory is not in the order of its axes, as the inner loop leaves them.
    params = {"a.weight": torch.randn(2, 3, 4, 5, generator=generator).permute(3, 2, 0, 1), "a.bias": torch.randn(4)}
    state = InnerState.fresh(params, optimizer, 10)
    for v in state.v.values():
        v.uniform_(generator=generator)
    state.steps.fill_(12_345)
    meta_state = MetaState(params, state, OuterState.fresh(params, "sgd"))
    return MetaWeights("mine", small_config(inner_optimizer=optimizer), meta_state, 678, None)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "some-weights.safetensors"
    save_weights(some_weights(), path, {"licence": "MIT", "note": "Größe"})
    return path


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_round_trip(tmp_path: Path, optimizer: str) -> None:
    path, written = tmp_path / "w.safetensors", some_weights(optimizer)
    save_weights(written, path, {})
    read = load_weights(path)
    assert (read.name, read.step, read.config, read.folder) == ("w", 678, written.config, None)
    assert read.state.params.keys() == written.state.params.keys()
    assert all(torch.equal(p, written.state.params[name]) for name, p in read.state.params.items())
    assert read.state.inner.v.keys() == written.state.inner.v.keys()
    assert all(torch.equal(v, written.state.inner.v[name]) for name, v in read.state.inner.v.items())
    assert torch.equal(read.state.inner.steps, written.state.inner.steps)
    assert read.state.inner.steps.dtype == torch.float64
    assert read.state.inner.images == written.config.training_batch
    assert sorted(file.name for file in tmp_path.iterdir()) == ["w.json", "w.safetensors"]


def test_the_card_says_what_it_was_told(weights: Path) -> None:
    card = weights_card(weights)
    assert (card["name"], card["outer_steps_done"], card["licence"]) == ("some-weights", 678, "MIT")
    assert "Größe" in weights.with_suffix(".json").read_text(encoding="utf-8")


@pytest.mark.parametrize("damage", ["none", "empty", "truncated", "noise", "card gone", "card damaged", "card foreign"])
def test_damaged_weights_are_named(weights: Path, damage: str) -> None:
    card = weights.with_suffix(".json")
    if damage == "none":
        assert load_weights(weights).step == 678  # the same file, undamaged
        return
    if damage == "empty":
        weights.write_bytes(b"")
    elif damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif damage == "noise":
        weights.write_bytes(bytes(range(256)) * 4)
    elif damage == "card gone":
        card.unlink()
    elif damage == "card damaged":
        card.write_text(card.read_text()[:50])
    elif damage == "card foreign":
        card.write_text('{"format": "other"}')
    with pytest.raises(RunError, match=r"some-weights\.(safetensors|json): "):
        load_weights(weights)


@pytest.mark.parametrize("key", ["config", "outer_steps_done"])
def test_an_incomplete_card_is_named(weights: Path, key: str) -> None:
    card = json.loads(weights.with_suffix(".json").read_text())
    del card[key]
    weights.with_suffix(".json").write_text(json.dumps(card))
    sealed_again(weights)
    with pytest.raises(RunError, match=rf"some-weights\.safetensors: not readable weights .*{key}"):
        load_weights(weights)


def test_a_missing_tensor_is_named(weights: Path) -> None:
    tensors = load_file(weights)
    del tensors["inner.steps"]
    save_file(tensors, weights)
    sealed_again(weights)
    with pytest.raises(RunError, match=r"some-weights\.safetensors: .*inner\.steps"):
        load_weights(weights)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("params.a.bias", torch.full((4,), torch.nan)),
        ("params.a.bias", torch.zeros(4, dtype=torch.int32)),
        ("inner.v.a.bias", torch.full((4,), torch.inf)),
        ("inner.steps", torch.tensor(-1.0)),
        ("inner.steps", torch.zeros(2)),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(weights: Path, name: str, value: torch.Tensor) -> None:
    save_file(load_file(weights) | {name: value}, weights)
    sealed_again(weights)
    with pytest.raises(RunError, match=rf"some-weights\.safetensors: not readable weights .*{name}"):
        load_weights(weights)


@pytest.mark.parametrize("step", [-1, 1.5, "678", True, None, 10**30])
def test_a_step_that_cannot_be_is_refused(weights: Path, step: object) -> None:
    card = json.loads(weights.with_suffix(".json").read_text())
    weights.with_suffix(".json").write_text(json.dumps(card | {"outer_steps_done": step}))
    with pytest.raises(RunError, match=r"its checksum differs|31 digits"):
        load_weights(weights)
    if step != 10**30:
        sealed_again(weights)
        with pytest.raises(RunError, match="outer_steps_done is"):
            load_weights(weights)


@pytest.mark.parametrize("file", [*(f"{name}.safetensors" for name in shipped_weights()), "some-weights.safetensors"])
def test_damage_anywhere_in_weights_and_card_is_noticed(weights: Path, tmp_path: Path, file: str) -> None:
    """A bad sector in the weights, and a changed digit in the settings of the card."""
    if file != weights.name:
        folder = resources.files("torchreptile.training.shipped_weights")
        for name in (file, f"{Path(file).stem}.json"):
            (tmp_path / name).write_bytes(folder.joinpath(name).read_bytes())
    path, card = tmp_path / file, (tmp_path / file).with_suffix(".json")
    intact, text = path.read_bytes(), card.read_text(encoding="utf-8")
    assert load_weights(path).step > 0
    for start in range(0, len(intact), len(intact) // 10):
        path.write_bytes(intact[:start] + bytes(b ^ 1 for b in intact[start : start + 100]) + intact[start + 100 :])
        with pytest.raises(RunError, match="belongs to, or damaged"):
            load_weights(path)
    path.write_bytes(intact)
    for old, new in (
        ('"seed": 0', '"seed": 1'),
        ('"inner_lr": 0.0', '"inner_lr": 0.1'),
        ('"sha256": "', '"sha256": "0'),
    ):
        assert old in text
        card.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(RunError, match=r"its checksum differs"):
            load_weights(path)
    unchecked = {name: value for name, value in json.loads(text).items() if name not in ("sha256", "checksum")}
    card.write_text(json.dumps(unchecked))
    with pytest.raises(RunError, match=r"not readable weights .'sha256'."):
        load_weights(path)


@pytest.mark.parametrize("name", ["nothing-like-this", "nothing.safetensors", ""])
def test_an_unknown_name_lists_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError):
        load_weights(name)
    if name:
        with pytest.raises(RunError, match=f"{name}: neither a run folder nor shipped weights .there are: "):
            load_weights(name)


def test_a_run_gives_its_last_or_its_best(tmp_path: Path, easy_data: Splits) -> None:
    train(small_config(outer_steps=4, monitor_every=1), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    for which, file in (("best", folder.best), ("last", folder.last)):
        expected, loaded = load_checkpoint(file), load_weights(tmp_path / "run", checkpoint=which)
        assert (loaded.step, loaded.name, loaded.folder) == (expected.step, "run", tmp_path / "run")
        for name, p in expected.state.params.items():
            assert torch.equal(loaded.state.params[name], p)
        file.unlink()
        with pytest.raises(RunError, match=r"there is no such checkpoint|has no best\.pt"):
            load_weights(tmp_path / "run", checkpoint=which)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, easy_data: Splits) -> None:
    for name, steps in (("one", 2), ("other", 3)):
        train(small_config(outer_steps=steps), tmp_path / name)
    shutil.copy(tmp_path / "other" / "last.pt", tmp_path / "one" / "last.pt")
    with pytest.raises(RunError, match=r"one/last.pt belongs to another run: its settings differ from .*config.json"):
        load_weights(tmp_path / "one")


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="is not a run folder"):
        load_weights(tmp_path)
    (tmp_path / "glyphs-5way").mkdir()  # as `reptile reproduce NAME --out NAME` leaves one
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="from another directory it names the shipped weights"):
        load_weights("glyphs-5way")


# Of all shipped weights the cells that their cards must have, and the least accuracy in percent.
SHIPPED = {
    "omniglot-5way": ({("omniglot", "test", 1), ("omniglot", "test", 5)}, 95),
    "omniglot-20way": ({("omniglot", "test", 1), ("omniglot", "test", 5)}, 87),
    "mini-imagenet-5way": ({("mini-imagenet", "val", 1), ("mini-imagenet", "val", 5)}, 44),
    "glyphs-5way": ({("omniglot", "test", 1)}, 85),
}


@pytest.mark.parametrize("name", shipped_weights())
def test_shipped_weights_are_small_whole_and_say_where_they_come_from(name: str) -> None:
    cells, least = SHIPPED[name]
    loaded = load_weights(name)
    assert loaded.name == name
    assert loaded.step == loaded.config.outer.outer_steps or loaded.config.outer.max_minutes
    assert all(bool(p.isfinite().all()) for p in loaded.state.params.values())
    assert all(bool((v >= 0).all()) for v in loaded.state.inner.v.values())
    file = Path(str(resources.files("torchreptile.training.shipped_weights").joinpath(f"{name}.safetensors")))
    assert file.stat().st_size < 1_000_000
    card = weights_card(file)
    assert card["data"]["split_seed"] == loaded.config.task.split_seed
    assert card["licence"].startswith("MIT")
    assert card["data"]["split_scheme"] != "default"
    full_length = card["training"]["published_outer_steps"]
    assert card["outer_steps_done"] <= full_length if full_length else loaded.config.outer.max_minutes
    assert {(line["dataset"], line["split"], line["shots"]) for line in card["results"]} >= cells
    for line in card["results"]:
        assert line["episodes"] >= 1000
        for word in ("split", "way", "shots", "episodes", "seed", "eval_steps", "eval_batch"):  # the command is whole
            assert f"--{word.replace('_', '-')} {line.get(word, '')}" in line["command"]
        for mode in ("transductive", "inductive"):
            assert least < line[mode]["accuracy"] < 100
            assert 0 < line[mode]["ci95"] < 98 / line["episodes"] ** 0.5  # none is wider: half is right


def test_shipping_takes_the_evaluation_on_most_episodes_and_says_how_long_it_was_trained(
    tmp_path: Path, easy_data: Splits
) -> None:
    tool, run = load_script("tools", "ship_weights"), tmp_path / "run"
    train(small_config(dataset="glyphs", outer_steps=2), run)
    for episodes in (6, 4):
        evaluate(run, episodes=episodes, device="cpu")
    evaluate(run, "train", episodes=8, device="cpu")
    tool.main(str(run), "small", "reptile train ...", tmp_path)
    card = weights_card(tmp_path / "small.safetensors")
    assert [(line["split"], line["episodes"]) for line in card["results"]] == [("test", 6)]
    assert card["outer_steps_done"] == 2
    assert load_weights(tmp_path / "small.safetensors").step == 2
    (run / "last.pt").unlink()
    with pytest.raises(RunError):
        tool.main(str(run), "small", "reptile train ...", tmp_path)


def test_weights_whose_second_moment_was_cut_are_refused_before_they_are_used(tmp_path: Path) -> None:
    config = small_config()
    algorithm = build_algorithm(config, TINY, torch.device("cpu"))
    state = algorithm.begin(0)
    cut = {name: v.reshape(-1)[:1] for name, v in state.inner.v.items()}
    for name, inner in (("intact", state.inner), ("cut", replace(state.inner, v=cut))):
        save_weights(
            MetaWeights(name, config, replace(state, inner=inner), 1, None), tmp_path / f"{name}.safetensors", {}
        )
    load_weights(tmp_path / "intact.safetensors").require_fit(algorithm)
    with pytest.raises(RunError, match="cut is damaged: its second moment does not fit its weights"):
        load_weights(tmp_path / "cut.safetensors").require_fit(algorithm)
