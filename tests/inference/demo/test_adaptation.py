"""What the demo says, against what the classifier says of the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torchreptile import FewShotClassifier
from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.config.presets import for_algorithm, preset
from torchreptile.core.errors import ConfigError
from torchreptile.inference.demo.adaptation import Adapter, stops
from torchreptile.inference.demo.examples import example_set
from torchreptile.training.weights import MetaWeights

GLYPHS = example_set(3, 4, seed=5)
CLASSES = [[image[None] for image in images[:2]] for images in GLYPHS]


@pytest.mark.parametrize("steps", [2, 12])
def test_the_last_stage_is_what_the_classifier_says(adapter: Adapter, steps: int) -> None:
    images = np.concatenate([np.stack(images) for images in CLASSES])
    classifier = FewShotClassifier("omniglot-5way", steps=steps).fit(images, [0, 0, 1, 1, 2, 2])
    for query in GLYPHS[:, 3]:
        answer = adapter.answer(CLASSES, query[None], steps=steps)
        expected = classifier.predict_proba(query[None])[0]
        np.testing.assert_allclose(answer.stages[-1].probabilities, expected, atol=2e-3)


def test_before_it_adapts_it_cannot_know(adapter: Adapter) -> None:
    """More gradient steps, less loss; and what was nearly chance becomes right."""
    answers = [adapter.answer(CLASSES, query[None], steps=50) for query in GLYPHS[:, 3]]
    for label, answer in enumerate(answers):
        assert [stage.steps for stage in answer.stages] == stops(50)
        assert len(answer.losses) == 50
        assert np.mean(answer.losses[-5:]) < 0.1 * np.mean(answer.losses[:3])
        for stage in answer.stages:
            assert sum(stage.probabilities or []) == pytest.approx(1, abs=1e-5)
        assert np.argmax(answer.stages[-1].probabilities or []) == label
        assert not answer.rejected


def test_what_is_none_of_the_classes_is_recognised(adapter: Adapter) -> None:
    """Noise is rejected; the calibration on the same examples is kept for the next query."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8)
    answer = adapter.answer(CLASSES, noise, steps=50)
    assert answer.rejected
    assert answer.none is not None
    assert answer.none > 0.5
    before = len(adapter._rejections)
    adapter.answer(CLASSES, GLYPHS[0, 3][None], steps=50)
    assert len(adapter._rejections) == before


def test_without_a_query_it_adapts_all_the_same(adapter: Adapter) -> None:
    answer = adapter.answer(CLASSES, None, steps=3)
    assert len(answer.losses) == 3
    assert {stage.probabilities for stage in answer.stages} == {None}


def test_two_to_twenty_classes(adapter: Adapter) -> None:
    glyphs = example_set(20, 2, seed=1)
    for way in (2, 20):
        answer = adapter.answer([[images[0][None]] for images in glyphs[:way]], glyphs[1, 1][None], steps=2)
        assert len(answer.stages[-1].probabilities or []) == way


def test_stops_begin_before_the_first_step_and_end_after_the_last() -> None:
    assert stops(1) == [0, 1]
    for steps in (2, 7, 50, 200):
        assert stops(steps)[0] == 0
        assert stops(steps)[-1] == steps
        assert len(stops(steps)) <= 11


def test_weights_that_adapt_in_no_steps_are_refused() -> None:
    config = for_algorithm("protonet", preset("omniglot-1shot-5way"))
    algorithm = build_algorithm(config, config.task.image_shape, torch.device("cpu"))
    with pytest.raises(ConfigError, match="mine was trained with protonet; the demo shows weights of reptile and foml"):
        Adapter(MetaWeights("mine", config, algorithm.begin(0), 0, None), "cpu")


def test_example_sets_are_the_seeds() -> None:
    assert (example_set(3, 4, seed=5) == GLYPHS).all()
    assert (example_set(3, 4, seed=6) != GLYPHS).any()
