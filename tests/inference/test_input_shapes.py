"""Images that are not square, series, and other numbers of channels: through classifier, files, training and export."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.easy import small_config
from torchreptile.core.config.algorithm_table import algorithm_names
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.dataset_table import register_dataset
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.models.built_in import Shape
from torchreptile.training.evaluation.evaluate import evaluate
from torchreptile.training.train import train

SHAPES: list[Shape] = [(1, 1, 24), (3, 6, 10), (5, 4, 7), (2, 24)]
RNG = np.random.default_rng


class ByPosition(nn.Module):
    """A linear network that can tell classes by where they are bright, and refuses any other shape."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.layer = nn.Linear(int(np.prod(shape)), outputs)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == self.shape, x.shape
        out: Tensor = self.layer(x.flatten(1))
        return out


def bright_at(shape: Shape, classes: int, images: int, seed: int = 0) -> np.ndarray:
    """(classes, images, *shape) uint8: class k is bright in its own stretch of the last axis, at the very edges too."""
    made = RNG(seed).integers(0, 60, (classes, images, *shape), dtype=np.uint8)
    edges = np.linspace(0, shape[-1], classes + 1).astype(int)
    for number in range(classes):
        made[number, ..., edges[number] : edges[number + 1]] += 180
    return made


@pytest.mark.parametrize("shape", SHAPES)
def test_a_classifier_sees_the_shape_it_was_given(shape: Shape, tmp_path: Path) -> None:
    """Classes that differ at the edges alone are told apart, in every form, after a file and a pickle."""
    classes, per_class = 3, 4
    images, queries = (bright_at(shape, classes, per_class, seed).reshape(-1, *shape) for seed in (0, 1))
    labels = np.repeat(["a", "b", "c"], per_class)
    classifier = FewShotClassifier(ByPosition(shape, classes), image_shape=shape, steps=60, batch=6)
    classifier.fit(images, labels)
    assert classifier.image_shape_ == shape
    assert torch.equal(classifier.prepare(queries), torch.from_numpy(queries))
    probabilities = classifier.predict_proba(queries)
    assert np.array_equal(classifier.classes_[probabilities.argmax(1)], labels)
    assert np.array_equal(classifier.predict_proba(queries.reshape(len(queries), -1)), probabilities)
    assert np.array_equal(pickle.loads(pickle.dumps(classifier)).predict_proba(queries), probabilities)
    classifier.save(tmp_path / "c.safetensors")
    loaded = FewShotClassifier.load(tmp_path / "c.safetensors", network=ByPosition)
    np.testing.assert_allclose(loaded.predict_proba(queries), probabilities, atol=1e-6)


def test_a_program_takes_series(tmp_path: Path) -> None:
    shape, labels = (2, 24), np.repeat(["a", "b"], 3)
    images = bright_at(shape, 2, 3).reshape(-1, *shape)
    classifier = FewShotClassifier(ByPosition(shape, 2), image_shape=shape, steps=3).fit(images, labels)
    probabilities, notes = classifier.predict_proba(images), classifier.export(tmp_path / "c.pt2")
    assert notes.as_text()["images"].startswith("floats from 0 (black) to 1 (white), (N, C, L)")
    assert notes.image_shape == shape
    program = torch.export.load(tmp_path / "c.pt2").module()
    exported = torch.cat([program(one[None]) for one in torch.from_numpy(images).float() / 255])
    np.testing.assert_allclose(exported.numpy(), probabilities, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_training_and_its_evaluation_see_the_shape_of_a_custom_data_set(shape: Shape, tmp_path: Path) -> None:
    register_dataset("test-shapes", lambda: dict(zip("abcdefghijkl", bright_at(shape, 12, 8), strict=True)))
    config = small_config(
        dataset="test-shapes", shape="x".join(map(str, shape)), split_ratio="0.5/0.25/0.25", execution="auto",
        outer_steps=2,
    )  # fmt: skip
    run = train(config, tmp_path / "run", network=ByPosition)
    found = evaluate(run.folder, network=ByPosition, episodes=3)
    assert found.config.task.image_shape == shape


@pytest.mark.parametrize("algorithm", algorithm_names())
@pytest.mark.parametrize("shape", ["1x6x12", "2x24"])
def test_built_in_networks_take_other_shapes_or_say_what_they_need(algorithm: str, shape: str, tmp_path: Path) -> None:
    sizes = tuple(map(int, shape.split("x")))
    register_dataset("test-shapes", lambda: dict(zip("abcdefghijkl", bright_at(sizes, 12, 8), strict=True)))
    config = small_config(algorithm=algorithm, dataset="test-shapes", shape=shape, execution="auto", outer_steps=1)
    config = config.replace(split_ratio="0.5/0.25/0.25")
    flat_enough = algorithm in ("matching", "protonet", "pretrained", "mann")
    if len(sizes) == 3 and flat_enough:
        assert train(config, tmp_path / "run").step == 1
        return
    need = "takes square images, not 12 x 6 pixels" if len(sizes) == 3 else r"takes images \(C, H, W\), not inputs of"
    with pytest.raises(ConfigError, match=need):
        train(config, tmp_path / "run")


@pytest.mark.parametrize("given", [None, (128,), (1, 1, 1, 8), (3, 0, 8), "3x8", (3, 8.5)])
def test_shapes_that_are_none_are_refused(given: Any) -> None:
    classifier = FewShotClassifier(nn.Linear(4, 2), image_shape=given)
    with pytest.raises(ConfigError, match="image_shape"):
        classifier.fit(np.zeros((2, 4)), [0, 1])


def test_series_of_another_length_are_refused() -> None:
    classifier = FewShotClassifier(ByPosition((2, 24), 2), image_shape=(2, 24))
    with pytest.raises(DataError, match=r"series are an array of shape \(4, 2, 20\); it must be \(N, 2, 24\)"):
        classifier.fit(np.zeros((4, 2, 20)), [0, 1, 0, 1])
