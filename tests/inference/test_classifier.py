"""FewShotClassifier: against the evaluation it must agree with, in scikit-learn's manners, and what it refuses."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.errors import ConfigError, DataError, NotFittedError
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.data.loading import load_splits
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.inference.class_balance import draw_for, evened
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.training.resize_head import with_outputs
from torchreptile.training.weights import load_weights

WEIGHTS, CPU = "glyphs-5way", torch.device("cpu")
LETTERS = np.array(["a", "b", "c", "d", "e", "f", "g", "h"])


@pytest.fixture(scope="module")
def store() -> ImageStore:
    """Generated characters that the weights never saw."""
    return load_splits(load_weights(WEIGHTS).config.task).test


def episode(store: ImageStore, way: int = 5, shots: int = 1, queries: int = 2, seed: int = 0) -> Episodes:
    return EpisodeSampler(store, way, shots, queries).sample(1, torch.Generator().manual_seed(seed))


def fitted(its: Episodes, **settings: Any) -> FewShotClassifier:
    return FewShotClassifier(WEIGHTS, **settings).fit(its.support_x[0], LETTERS[its.support_y[0]])


def score(store: ImageStore, way: int, shots: int, tasks: int) -> float:
    scores = []
    for seed in range(tasks):
        its = episode(store, way, shots, seed=seed)
        scores.append(fitted(its).score(its.query_x[0], LETTERS[its.query_y[0]]))
    return float(np.mean(scores))


def test_it_says_what_an_evaluation_says(store: ImageStore) -> None:
    """The same mini-batches, both ways of answering: the same labels, and as sure of them."""
    its, loaded = episode(store), load_weights(WEIGHTS)
    algorithm = build_algorithm(loaded.config, store.image_shape, CPU)
    expected = algorithm.predict(loaded.state, its, torch.Generator().manual_seed(4))
    drawn = algorithm.draw(1, 5, torch.Generator().manual_seed(4))
    adapted = algorithm.adapt(loaded.state, its.support_x, its.support_y, drawn)
    answers = (expected.inductive, adapted.inductive), (expected.transductive, adapted.transductive)
    for transductive, (labels, outputs) in enumerate(answers):
        classifier = fitted(its, seed=4, transductive=bool(transductive))
        assert classifier.predict(its.query_x[0]).tolist() == LETTERS[labels[0]].tolist()
        shares = outputs(its.query_x)[0].softmax(1).numpy()
        np.testing.assert_allclose(classifier.predict_proba(its.query_x[0]), shares, atol=1e-4)


def test_it_recognises_characters_it_saw_once(store: ImageStore) -> None:
    """12 tasks each, chance is 20%, 33% and 12.5%; a head for more classes than trained is a makeshift."""
    assert score(store, 5, 1, 12) > 0.75
    assert score(store, 3, 1, 12) > 0.8
    assert score(store, 8, 3, 4) > 0.5


def test_drawings_are_scaled_as_what_the_weights_were_trained_on(store: ImageStore) -> None:
    """The same labels for pictures four times as large, whose lines are four pixels wide."""
    its = episode(store)
    large = its.query_x[0, :, 0].repeat_interleave(4, 1).repeat_interleave(4, 2)
    classifier = fitted(its)
    small = classifier.prepare((its.query_x[0] * 255).to(torch.uint8))
    assert classifier.prepare(large).unique().tolist() == [0, 255]
    assert (classifier.prepare(large) != small).double().mean() < 0.05
    assert classifier.predict(large).tolist() == classifier.predict(small).tolist()


def test_alone_means_alone_and_one_image_gives_one_label(store: ImageStore) -> None:
    its = episode(store)
    classifier = fitted(its)
    together = classifier.predict_proba(its.query_x[0])
    assert together.shape == (10, 5)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)
    for number, image in enumerate(its.query_x[0]):
        np.testing.assert_allclose(classifier.predict_proba(image)[0], together[number], atol=1e-4)
    assert classifier.predict(its.query_x[0][0]).shape == (1,)


def test_same_seed_same_answer_bit_by_bit(store: ImageStore) -> None:
    its = episode(store)
    first, second = (fitted(its, seed=3).predict_proba(its.query_x[0]) for _ in "12")
    assert (first == second).all()


def test_classes_may_have_different_numbers_of_images(store: ImageStore) -> None:
    its = episode(store, shots=3)
    keep = [i for i, label in enumerate(its.support_y[0].tolist()) if label != 0 or i == 0]
    classifier = FewShotClassifier(WEIGHTS).fit(its.support_x[0][keep], LETTERS[its.support_y[0][keep]])
    assert classifier.classes_.tolist() == ["a", "b", "c", "d", "e"]
    assert classifier.predict(its.query_x[0]).shape == (10,)


def test_a_module_of_ones_own_learns_from_its_own_weights_and_is_left_as_it_is(store: ImageStore) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 5, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 5))
    before = copy.deepcopy(module.state_dict())
    its = episode(store, shots=5)
    classifier = FewShotClassifier(module, image_shape=(1, 28, 28), steps=60, batch=10)
    classifier.fit(its.support_x[0], its.support_y[0])
    assert classifier.score(its.support_x[0], its.support_y[0]) > 0.9
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with pytest.raises(ConfigError, match="give image_shape"):
        FewShotClassifier(module).fit(its.support_x[0], its.support_y[0])


def test_a_head_of_another_size_keeps_the_rows_there_are(store: ImageStore) -> None:
    loaded = load_weights(WEIGHTS)
    rows = loaded.state.params["head.weight"]
    for way in (3, 5, 8):
        algorithm = build_algorithm(loaded.config.replace(way=way), store.image_shape, CPU)
        resized = with_outputs(loaded, algorithm).state
        assert {name: tuple(p.shape) for name, p in resized.params.items()} == algorithm.shapes
        assert torch.equal(resized.params["head.weight"][:5], rows[:way])
        assert torch.equal(resized.params["head.weight"][5:], rows.mean(0).expand(max(0, way - 5), -1))
        assert resized.inner.v["head.bias"].shape == (way,)
        assert resized.inner.images == loaded.state.inner.images


def test_scikit_learns_manners(store: ImageStore) -> None:
    classifier = FewShotClassifier(WEIGHTS, steps=7)
    assert classifier.get_params()["steps"] == 7
    assert classifier.set_params(steps=9, seed=2).get_params() | {"weights": 0} == {
        "weights": 0, "network": None, "image_shape": None, "steps": 9, "batch": None, "inner_lr": None,
        "balanced": True, "transductive": False, "reject": None, "seed": 2, "device": "cpu",
    }  # fmt: skip
    assert repr(classifier) == "FewShotClassifier(weights='glyphs-5way', steps=9, seed=2)"
    with pytest.raises(ConfigError, match="unknown setting stepz; the settings are weights, network"):
        classifier.set_params(stepz=1)
    base = pytest.importorskip("sklearn.base", reason="scikit-learn is not installed")
    assert base.clone(classifier).get_params() == classifier.get_params()
    assert base.is_classifier(classifier)


def test_what_cannot_be_is_refused(store: ImageStore) -> None:
    its = episode(store)
    images = its.support_x[0]
    with pytest.raises(NotFittedError, match="is not fitted; call fit"):
        FewShotClassifier(WEIGHTS).predict(images)
    for labels, probabilities in (
        (["a"] * 5, "one class, .*at least two"),
        (["a", "b"], "5 images and 2 labels"),
        ("abcde", "labels is the string"),
        ([["a", "b"]], r"shape \(1, 2\)"),
        ([], "one label per image"),
    ):
        with pytest.raises(DataError, match=probabilities):
            FewShotClassifier(WEIGHTS).fit(images, labels)
    with pytest.raises(DataError, match="10 images and 1 labels"):
        fitted(its).score(its.query_x[0], ["a"])


def test_weights_that_learned_from_inverted_images_are_shown_inverted_images(store: ImageStore, tmp_path: Path) -> None:
    """The images themselves in both cases, so that nobody who uses such weights need know."""
    its, plain = episode(store, shots=2), load_weights(WEIGHTS)
    light = replace(plain, config=plain.config.replace(inverted=True))
    one = FewShotClassifier(plain).fit(1 - its.support_x[0], LETTERS[its.support_y[0]])
    other = FewShotClassifier(light).fit(its.support_x[0], LETTERS[its.support_y[0]])
    expected = one.predict_proba(1 - its.query_x[0])
    np.testing.assert_allclose(other.predict_proba(its.query_x[0]), expected, atol=1e-5)
    other.save(tmp_path / "c.safetensors")
    again = FewShotClassifier.load(tmp_path / "c.safetensors")
    np.testing.assert_allclose(again.predict_proba(its.query_x[0]), expected, atol=1e-5)
    assert again.export(tmp_path / "c.pt2").image_shape == (1, 28, 28)
    program = torch.export.load(tmp_path / "c.pt2").module()
    np.testing.assert_allclose(program(its.query_x[0][:1]).numpy(), expected[:1], atol=1e-5)


def test_a_larger_head_takes_more_steps_unless_told(store: ImageStore) -> None:
    for way, steps, wanted in ((3, None, 50), (5, None, 50), (7, None, 70), (7, 9, 9)):
        classifier = FewShotClassifier(WEIGHTS, steps=steps).fit(np.zeros((way, 28, 28), dtype=np.uint8), range(way))
        assert classifier.fitted_.algorithm.config.evaluation.eval_steps == wanted


class Dropping(nn.Module):
    """A network that draws."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


def test_a_network_that_draws_follows_the_seed_too(store: ImageStore) -> None:
    its = episode(store)
    first, second, other = (
        FewShotClassifier(Dropping(), image_shape=(1, 28, 28), steps=5, seed=seed)
        .fit(its.support_x[0], its.support_y[0])
        .predict_proba(its.query_x[0])
        for seed in (3, 3, 4)
    )
    assert (first == second).all()
    assert (first != other).any()


def test_settings_count_from_the_next_fit(store: ImageStore) -> None:
    its = episode(store)
    classifier = fitted(its)
    alone = classifier.predict_proba(its.query_x[0])
    classifier.set_params(transductive=True)
    assert (classifier.predict_proba(its.query_x[0]) == alone).all()
    together = classifier.fit(its.support_x[0], LETTERS[its.support_y[0]]).predict_proba(its.query_x[0])
    assert (together != alone).any()


@pytest.mark.parametrize("labels", [[1, "a"], [None, "a"], [0.5, float("nan")], [(1, 2), (3, 4)]])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[object]) -> None:
    with pytest.raises(DataError, match="label"):
        FewShotClassifier(WEIGHTS).fit(np.zeros((2, 28, 28), dtype=np.uint8), labels)


def test_scores_of_labels_of_another_kind_are_refused(store: ImageStore) -> None:
    its = episode(store)
    classifier = FewShotClassifier(WEIGHTS, steps=1).fit(its.support_x[0], its.support_y[0])
    with pytest.raises(DataError, match="and those it was fitted with int64"):
        classifier.score(its.query_x[0], [str(label) for label in its.query_y[0].tolist()])


@pytest.mark.parametrize("settings", [{}, {"transductive": True}, {"balanced": False, "inner_lr": 1e-4}])
def test_a_fitted_classifier_can_be_pickled_and_copied(store: ImageStore, settings: dict[str, Any]) -> None:
    its = episode(store, shots=2)
    classifier = fitted(its, steps=5, seed=3, **settings)
    probabilities = classifier.predict_proba(its.query_x[0])
    for other in (pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)):
        assert np.array_equal(other.predict_proba(its.query_x[0]), probabilities)
        assert other.get_params() | {"weights": 0} == classifier.get_params() | {"weights": 0}
        assert other.classes_.tolist() == classifier.classes_.tolist()
    unfitted = pickle.loads(pickle.dumps(FewShotClassifier(WEIGHTS)))
    with pytest.raises(NotFittedError, match="is not fitted"):
        unfitted.predict(its.query_x[0])


def test_a_fitted_custom_module_can_be_pickled(store: ImageStore) -> None:
    its = episode(store, way=2, shots=2)
    module = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    classifier = FewShotClassifier(module, image_shape=(1, 28, 28), steps=4).fit(its.support_x[0], its.support_y[0])
    other = pickle.loads(pickle.dumps(classifier))
    assert np.array_equal(other.predict_proba(its.query_x[0]), classifier.predict_proba(its.query_x[0]))


def test_classes_of_equal_size_are_balanced_already(store: ImageStore) -> None:
    """The option changes not a bit of what was published."""
    its = episode(store, shots=2)
    one, other = (fitted(its, steps=6, balanced=balanced) for balanced in (True, False))
    assert np.array_equal(one.predict_proba(its.query_x[0]), other.predict_proba(its.query_x[0]))


def test_balanced_mini_batches_hold_every_class_equally_often(store: ImageStore) -> None:
    """With 1, 2 and 4 images of three classes, a pass through the mini-batches has every class four times."""
    labels = torch.tensor([2, 0, 1, 2, 1, 2, 2])
    assert evened(labels)[:7].tolist() == list(range(7))
    assert labels[evened(labels)].bincount().tolist() == [4, 4, 4]
    assert evened(labels).bincount().tolist() == [1, 4, 2, 1, 2, 1, 1]
    loaded = load_weights(WEIGHTS)
    config = loaded.config.replace(way=3, eval_steps=8, eval_batch=3, execution="grouped")
    algorithm = build_algorithm(config, store.image_shape, CPU)
    drawn = draw_for(algorithm, labels, True, torch.Generator().manual_seed(0))
    assert drawn.shape == (1, 8, 3)
    for its in labels[drawn].view(2, 12):  # two passes of 12 images
        assert its.bincount().tolist() == [4, 4, 4]
    plain = draw_for(algorithm, labels, False, torch.Generator().manual_seed(0))
    assert torch.equal(plain, algorithm.draw(1, 7, torch.Generator().manual_seed(0)))
