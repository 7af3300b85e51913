"""A fitted classifier written and read: the same answers, whatever the algorithm, and what is damaged refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.easy import MINIATURES, small_config
from tests.runs import sealed_again
from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.core.config.algorithm_table import algorithm_names
from torchreptile.core.errors import ConfigError, DataError, RunError
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.training.weights import MetaWeights, load_weights

WEIGHTS, SHAPE = "glyphs-5way", (1, 28, 28)


def images(count: int, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    FewShotClassifier(WEIGHTS, seed=3).fit(images(6), ["b", "a", "c"] * 2).save(tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def test_it_answers_as_before_and_can_be_fitted_again(saved: Path) -> None:
    first, queries = FewShotClassifier(WEIGHTS, seed=3).fit(images(6), ["b", "a", "c"] * 2), images(4, 1)
    again = FewShotClassifier.load(saved)
    assert (again.predict_proba(queries) == first.predict_proba(queries)).all()
    assert again.predict(queries).tolist() == first.predict(queries).tolist()
    assert again.get_params() | {"weights": WEIGHTS} == first.get_params()
    # Another support set starts from the weights before adapting, not from the adapted ones.
    for classifier in (first, again):
        classifier.fit(images(6, 2), [7, 8, 9] * 2)
    assert (again.predict_proba(queries) == first.predict_proba(queries)).all()
    assert len(repr(again)) < 300


def test_a_classifier_is_a_weights_file_too(saved: Path) -> None:
    before, after = load_weights(WEIGHTS), load_weights(saved)
    assert all(torch.equal(p, after.state.params[name]) for name, p in before.state.params.items())
    assert after.config == before.config
    assert sorted(file.name for file in saved.parent.iterdir()) == ["mine.json", "mine.safetensors"]


def test_numbers_of_numpy_are_settings(tmp_path: Path) -> None:
    """A grid search over numpy.arange gives them."""
    numbers: dict[str, Any] = {
        "steps": np.int64(2), "batch": np.int32(4), "inner_lr": np.float32(0.5), "reject": np.float32(0.25),
        "transductive": np.bool_(False), "seed": np.int64(1),
    }  # fmt: skip
    plain: dict[str, Any] = {name: number.item() for name, number in numbers.items()}
    given, expected = (FewShotClassifier(WEIGHTS, **each).fit(images(6), ["a", "b"] * 3) for each in (numbers, plain))
    given.save(tmp_path / "numpy.safetensors")
    for classifier in (given, FewShotClassifier.load(tmp_path / "numpy.safetensors")):
        assert (classifier.predict_proba(images(2)) == expected.predict_proba(images(2))).all()


@pytest.mark.parametrize("labels", [["x", "yy"], [3, 1], [0.5, 2.5], [True, False]])
def test_labels_keep_their_kind(tmp_path: Path, labels: list[object]) -> None:
    classifier = FewShotClassifier(WEIGHTS, steps=1).fit(images(2), labels)
    classifier.save(tmp_path / "c.safetensors")
    again = FewShotClassifier.load(tmp_path / "c.safetensors")
    assert again.classes_.dtype == classifier.classes_.dtype
    assert again.predict(images(3)).tolist() == classifier.predict(images(3)).tolist()


@pytest.mark.parametrize("algorithm", algorithm_names())
def test_every_algorithm(tmp_path: Path, algorithm: str) -> None:
    config = small_config(algorithm=algorithm, **MINIATURES.get(algorithm, {}))
    built = build_algorithm(config, config.task.image_shape, torch.device("cpu"), classes=9)
    start = MetaWeights("some", config, built.begin(1), 5, None)
    shape, way = config.task.image_shape, config.task.way
    classifier = FewShotClassifier(start, seed=2).fit(images(2 * way, 0, shape), list("abcdefgh"[:way]) * 2)
    queries = images(5, 1, shape)
    classifier.save(tmp_path / "c.safetensors")
    again = FewShotClassifier.load(tmp_path / "c.safetensors")
    # Kernels may lie in memory in another order now, so that sums come in another one.
    np.testing.assert_allclose(again.predict_proba(queries), classifier.predict_proba(queries), atol=1e-6)
    assert again.fit(images(2 * way, 3, shape), list("abcdefgh"[:way]) * 2).predict(queries).shape == (5,)


def test_a_fine_tuned_embedding_keeps_what_it_became(tmp_path: Path) -> None:
    config = small_config(algorithm="protonet", finetune_steps=3)
    built = build_algorithm(config, config.task.image_shape, torch.device("cpu"))
    shape, way = config.task.image_shape, config.task.way
    classifier = FewShotClassifier(MetaWeights("some", config, built.begin(1), 5, None))
    classifier.fit(images(2 * way, 0, shape), list(range(way)) * 2).save(tmp_path / "c.safetensors")
    tensors = load_file(tmp_path / "c.safetensors")
    assert not torch.equal(tensors["adapted.convs.0.weight"], tensors["params.convs.0.weight"])
    again = FewShotClassifier.load(tmp_path / "c.safetensors")
    assert (again.predict_proba(images(5, 1, shape)) == classifier.predict_proba(images(5, 1, shape))).all()


class Net(nn.Module):
    """A custom network."""

    def __init__(self, image_shape: tuple[int, int, int], outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 5, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(outputs))
        self.layers(torch.zeros(1, *image_shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


def test_a_module_of_ones_own_is_named_again(tmp_path: Path) -> None:
    shape = (3, 20, 20)
    torch.manual_seed(0)
    classifier = FewShotClassifier(Net(shape, 2), image_shape=shape, steps=5).fit(images(4, 0, shape), [0, 1, 0, 1])
    classifier.save(tmp_path / "own.safetensors")
    again = FewShotClassifier.load(tmp_path / "own.safetensors", network=Net)
    assert (again.predict_proba(images(3, 1, shape)) == classifier.predict_proba(images(3, 1, shape))).all()
    with pytest.raises(ConfigError, match="its weights are not those of this network"):
        FewShotClassifier.load(tmp_path / "own.safetensors")


class Keeping(Net):
    """One that keeps a buffer, which weights do not hold."""

    def __init__(self) -> None:
        super().__init__((3, 20, 20), 2)
        self.register_buffer("mean", torch.ones(3))


def test_a_module_with_buffers_is_not_saved_without_them(tmp_path: Path) -> None:
    shape = (3, 20, 20)
    classifier = FewShotClassifier(Keeping(), image_shape=shape, steps=1).fit(images(4, 0, shape), [0, 1, 0, 1])
    with pytest.raises(ConfigError, match="Keeping has the buffers mean, which"):
        classifier.save(tmp_path / "own.safetensors")
    assert not list(tmp_path.iterdir())


def test_no_step_leaves_the_weights_as_they_are() -> None:
    start = load_weights(WEIGHTS)
    algorithm = build_algorithm(start.config.replace(eval_steps=0), SHAPE, torch.device("cpu"))
    support = torch.from_numpy(images(5)).float()[None] / 255
    labels = torch.arange(5)[None]
    adapted = algorithm.adapt(start.state, support, labels, algorithm.draw(1, 5, torch.Generator()))
    state, config = algorithm.settled(start.state, adapted)
    assert isinstance(state, MetaState)
    assert config.evaluation.eval_steps == 0
    assert all(torch.equal(p, state.params[name]) for name, p in start.state.params.items())


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    classifier = FewShotClassifier(WEIGHTS, steps=1).fit(images(2), ["a", "b"])
    with pytest.raises(ConfigError, match=r"mine.pt ends in .pt; a classifier file ends in .safetensors"):
        classifier.save(tmp_path / "mine.pt")
    (tmp_path / "mine.json").write_text('{"my": "notes"}')
    with pytest.raises(RunError, match=r"mine.json: not a card"):
        classifier.save(tmp_path / "mine.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.json"]
    classifier.fit(images(2), [b"a", b"b"])
    with pytest.raises(DataError, match="labels are of type bytes, which cannot be saved"):
        classifier.save(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "damage", ["gone", "weights", "labels", "classes", "images", "kind", "adapted", "settings", "steps", "nan", "other"]
)
def test_what_cannot_be_read_is_refused(saved: Path, damage: str) -> None:
    if damage == "gone":
        saved.unlink()
        with pytest.raises(RunError, match="there is no such file"):
            FewShotClassifier.load(saved)
        return
    card_file, tensors = saved.with_suffix(".json"), load_file(saved)
    card = json.loads(card_file.read_text())
    if damage == "weights":
        del card["classifier"]
    elif damage == "labels":
        tensors["support.labels"] = torch.full_like(tensors["support.labels"], 7)
    elif damage == "classes":
        card["classifier"]["classes"].append("d")
    elif damage == "images":
        tensors["support.images"] = tensors["support.images"][:, :, 1:].contiguous()
    elif damage == "kind":
        card["classifier"]["classes"] = [{"x": 1}, {"y": 2}, {"z": 3}]
    elif damage == "adapted":
        tensors["adapted.head.bias"] = torch.zeros(4)
    elif damage == "settings":
        card["classifier"]["settings"].pop("seed")
    elif damage == "steps":
        card["classifier"]["settings"]["steps"] = 10**8
    elif damage == "nan":
        tensors["adapted.head.bias"] = torch.full((3,), torch.nan)
    if damage == "other":
        tensors["support.labels"] = tensors["support.labels"].flip(0)
    card_file.write_text(json.dumps(card))
    save_file(tensors, saved)
    if damage != "other":
        sealed_again(saved)  # what else is damaged must show by itself
    messages = {
        "weights": "weights without a support set",
        "adapted": "do not fit",
        "settings": "not a readable classifier",
        "steps": "not a readable classifier .steps is 100000000.",
        "other": "not the file that mine.json belongs to",
    }
    with pytest.raises(RunError, match=messages.get(damage, "do not match")):
        FewShotClassifier.load(saved)
