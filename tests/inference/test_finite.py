"""Estimators whose network diverged refuse to answer; their inner learning rate can be set."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchreptile.core.errors import ConfigError, DivergedError, RunError
from torchreptile.inference import classifier_file
from torchreptile.inference.classifier import FewShotClassifier
from torchreptile.inference.label_folder import fit_folder, label_pictures
from torchreptile.inference.regressor import FewShotRegressor

SHAPE = (1, 6, 6)
GREY = np.full((4, 6, 6), 100, np.uint8)
LABELS = ["a", "b", "b", "b"]


class Scaled(nn.Module):
    """A linear classifier of images times a factor; white pixels alone are multiplied if ``white``."""

    def __init__(self, factor: float, white: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self.factor, self.white = nn.Linear(36, 2), factor, white

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.head(torch.where(x < 1, x, x * self.factor) if self.white else x * self.factor)


def a_line(size: float) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(-size, size, 20)[:, None]
    return x, 3 * x[:, 0]


@pytest.fixture(scope="module")
def fits() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1))


def test_a_regressor_whose_adaptation_overflows_says_so(fits: nn.Module) -> None:
    x, y = a_line(1000)
    with pytest.raises(DivergedError) as raised:
        FewShotRegressor(fits).fit(x, y)
    assert str(raised.value) == (
        "adaptation diverged, its weights are not finite numbers: inner_lr is 0.02 and steps 32; try a smaller "
        "inner_lr, such as 0.002, or fewer steps, or bring X and y to a size of about 1"
    )
    x, y = a_line(1)
    assert FewShotRegressor(fits).fit(x, y).score(x, y) > 0.9


def test_the_advice_of_a_regressor_works(fits: nn.Module) -> None:
    x, y = a_line(1000)
    predicted = FewShotRegressor(fits, inner_lr=1e-7).fit(x, y).predict(x)
    assert np.isfinite(predicted).all()
    other = FewShotRegressor(fits, inner_lr=1e-8).fit(x, y).predict(x)
    assert not np.array_equal(predicted, other)


def test_points_that_overflow_are_counted(fits: nn.Module) -> None:
    """The network itself is sound; two of the points are too large for it."""
    x, y = a_line(1)
    regressor = FewShotRegressor(copy.deepcopy(fits)).fit(x, y)
    assert np.isfinite(regressor.predict([[0.0], [1e6]])).all()
    with pytest.raises(DivergedError, match="predictions for 2 of 3 points diverged, they are not finite numbers"):
        regressor.predict([[1e39], [0.0], [-1e39]])
    with pytest.raises(DivergedError):
        regressor.score([[1e39], [0.0]], [0.0, 1.0])


def test_a_classifier_never_makes_up_a_class() -> None:
    with pytest.raises(DivergedError, match="adaptation diverged, its weights are not finite numbers: inner_lr is 0"):
        FewShotClassifier(Scaled(torch.inf), image_shape=SHAPE).fit(GREY, LABELS)
    for transductive in (False, True):
        settings = {"image_shape": SHAPE, "transductive": transductive, "steps": 2}
        classifier = FewShotClassifier(Scaled(torch.inf, white=True), **settings).fit(GREY, LABELS)
        mixed = GREY[:3].copy()
        mixed[1] = 255
        assert np.isfinite(classifier.predict_proba(mixed[:1])).all()
        message = "predictions for 1 of 3 images diverged, they are not finite numbers: inner_lr is 0.001 and steps 2"
        for ask in (classifier.predict, classifier.predict_proba, partial(classifier.score, labels=["a"] * 3)):
            with pytest.raises(DivergedError, match=message):
                ask(mixed)


def test_pictures_are_not_labelled_by_a_network_that_diverged(tmp_path: Path) -> None:
    from PIL import Image

    for name, grey in (("support/a/1", 90), ("support/b/1", 150), ("query/1", 255)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 6), grey).save(f"{tmp_path / name}.png")
    classifier = FewShotClassifier(Scaled(torch.inf, white=True), image_shape=SHAPE)
    fit_folder(classifier, tmp_path / "support")
    with pytest.raises(DivergedError, match="1 of 1 images"):
        label_pictures(classifier, tmp_path / "query")


def test_the_inner_rate_is_a_setting(tmp_path: Path) -> None:
    """It changes what is fitted, counts from the next fit, and is saved; files of earlier versions have none."""
    module = Scaled(1.0)
    images = np.stack([np.full((6, 6), grey, np.uint8) for grey in (20, 240, 60, 200)])
    labels = ["dark", "bright", "dark", "bright"]
    usual = FewShotClassifier(module, image_shape=SHAPE, steps=3).fit(images, labels)
    same = FewShotClassifier(module, image_shape=SHAPE, steps=3, inner_lr=np.float64(0.001)).fit(images, labels)
    large = FewShotClassifier(module, image_shape=SHAPE, steps=3, inner_lr=0.1).fit(images, labels)
    assert np.array_equal(usual.predict_proba(images), same.predict_proba(images))
    assert np.abs(usual.predict_proba(images) - large.predict_proba(images)).max() > 0.05
    assert "inner_lr=0.1" in repr(large)
    glyphs = FewShotClassifier("glyphs-5way", inner_lr=0.002, steps=2).fit(np.repeat(GREY, 2, 0), LABELS * 2)
    file = tmp_path / "saved.safetensors"
    glyphs.save(file)
    assert FewShotClassifier.load(file).inner_lr == 0.002
    saved = glyphs.fitted_.saved()
    settings = {name: value for name, value in saved.settings.items() if name != "inner_lr"}
    classifier_file.write(replace(saved, settings=settings), file)
    assert FewShotClassifier.load(file).inner_lr is None
    classifier_file.write(replace(saved, settings=settings | {"inner_lr": -1.0}), file)
    with pytest.raises(RunError, match="inner_lr is -1"):
        FewShotClassifier.load(file)


@pytest.mark.parametrize(
    ("rate", "message"), [(0.0, "greater than 0"), (float("nan"), "greater"), ("fast", "type float")]
)
def test_a_rate_that_cannot_be_is_refused(rate: object, message: str, fits: nn.Module) -> None:
    with pytest.raises(ConfigError, match=f"inner_lr is .*{message}"):
        FewShotClassifier(Scaled(1.0), image_shape=SHAPE, inner_lr=rate).fit(GREY, LABELS)
    with pytest.raises(ConfigError, match=f"inner_lr is .*{message}"):
        FewShotRegressor(fits, inner_lr=rate).fit(*a_line(1))
