"""Rejection of images of none of the classes: the statistics, the calibration and what it does on real drawings."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from torchreptile import FewShotClassifier
from torchreptile.core.errors import ConfigError
from torchreptile.data.glyphs import generate
from torchreptile.inference.label_folder import label_pictures
from torchreptile.inference.rejection import (
    HeldOut,
    Rejection,
    altered,
    calibrated,
    check_rate,
    held_out,
    mean_logits,
    none_label,
    statistics,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ORIGIN = torch.zeros(2, 2).double()


def found_of(logits: Tensor, means: Tensor) -> HeldOut:
    return HeldOut(statistics(logits, means), logits.softmax(1).max(1).values)


def test_statistics_are_log_odds_largest_logit_and_distance() -> None:
    logits, means = torch.tensor([[2.0, 1.0, 0.0]]).double(), torch.diag(torch.tensor([5.0, 9.0, 9.0])).double()
    best = torch.tensor([2.0, 1.0, 0.0]).softmax(0)[0]
    margin, largest, distance = statistics(logits, means)[0].tolist()
    assert margin == pytest.approx(float((best / (1 - best)).log()), abs=1e-6)
    assert largest == 2.0
    assert distance == pytest.approx(-(((5 - 2) ** 2 + 1) ** 0.5))


def test_log_odds_of_a_certain_prediction_stay_finite() -> None:
    assert statistics(torch.tensor([[1000.0, 0.0]]).double(), ORIGIN)[0, :2].tolist() == [1000.0, 1000.0]


def test_mean_logits_are_by_class() -> None:
    logits = torch.tensor([[4.0, 0.0], [1.0, 5.0], [2.0, 0.0]])
    assert mean_logits(logits, torch.tensor([0, 1, 0])).tolist() == [[3.0, 0.0], [1.0, 5.0]]


def test_the_threshold_rejects_the_requested_share_of_known_images() -> None:
    """Rejected means that the extra class is the most probable; 20% of 1,000 known images are."""
    logits, means = 3 * torch.randn(1000, 4, generator=seeded()).double(), torch.zeros(4, 4).double()
    rejection = calibrated(found_of(logits, means), means, 0.2)
    probabilities = rejection.with_none(logits)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1000).double())
    assert float((probabilities.argmax(1) == 4).double().mean()) == pytest.approx(0.2, abs=0.002)


def test_every_statistic_rejects() -> None:
    """Known images have a wide margin, a large logit, and logits like their class's; any may be missing."""
    known = torch.tensor([[10.0, 0.0], [11.0, 0.5], [0.0, 10.5], [0.2, 11.0], [9.5, 0.1]]).double()
    means = torch.tensor([[10.2, 0.2], [0.1, 10.8]]).double()
    rejection = calibrated(found_of(known, means), means, 0.05)
    for near in ([10.0, 9.5], [-5.0, -15.0], [10.0, -90.0]):
        assert rejection.with_none(torch.tensor([near])).argmax(1).item() == 2
    assert rejection.with_none(torch.tensor([[10.5, 0.1]])).argmax(1).item() == 0


def test_every_image_of_a_class_with_several_is_left_out_once() -> None:
    """No adaptation sees what it classifies; single images are classified as altered copies."""
    images = torch.arange(6.0).view(6, 1, 1, 1) / 10
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    classified: list[float] = []

    def predict(support: Tensor, its: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        assert set(its.tolist()) == {0, 1, 2}
        if len(support) < 6:
            assert not set(support.flatten().tolist()) & set(queries.flatten().tolist())
            classified.extend(queries.flatten().tolist())
        else:
            classified.extend([-1.0] * len(queries))
        return torch.zeros(len(support), 3), torch.zeros(len(queries), 3)

    found = held_out(predict, images, labels, seeded())
    copies = 4 * images[:5].flatten().tolist()  # each itself, and three of constant colour that alterations leave alone
    assert sorted(classified) == sorted([-1.0] * 3 + copies)
    assert found.statistics.shape == (23, 3)
    assert found.confidence.tolist() == pytest.approx([1 / 3] * 23)


def test_altered_copies_differ_and_stay_within_range() -> None:
    images = torch.rand(1, 3, 12, 20, generator=seeded()).repeat(3, 1, 1, 1)
    copies = altered(images, seeded(1))
    assert copies.shape == images.shape
    assert float(copies.min()) >= 0
    assert float(copies.max()) <= 1
    assert not torch.equal(copies[0], copies[1])


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, float("nan"), True, "0.05"])
def test_a_rate_outside_0_to_1_is_refused(rate: object) -> None:
    with pytest.raises(ConfigError, match=r"reject is .*such as 0\.05"):
        check_rate(rate)  # type: ignore[arg-type]


def test_the_label_of_rejected_images_cannot_be_a_class() -> None:
    assert none_label(np.array(["a", "b"])) == "none of these"
    assert none_label(np.array([0, 1])) == -1
    with pytest.raises(ConfigError, match="rename the class"):
        none_label(np.array([-1, 1]))
    with pytest.raises(ConfigError, match="strings or signed numbers"):
        none_label(np.array([True, False]))


def test_images_that_are_not_square_are_rotated_without_shear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turned square in the middle of a wide image is the one of a square image with the same paper around it."""
    wide = torch.zeros(1, 1, 40, 80)
    wide[..., 10:30, 30:50] = 1
    monkeypatch.setattr("torchreptile.inference.rejection.LARGEST_SHIFT", 0.0)
    turned, square = altered(wide, seeded(1)), altered(wide[..., 20:60], seeded(1))
    torch.testing.assert_close(turned[..., 20:60], square, rtol=0, atol=1e-5)


def test_series_are_shifted() -> None:
    series = torch.rand(2, 6, 50, generator=seeded())
    copies = altered(series, seeded(1))
    assert copies.shape == series.shape
    assert not torch.equal(copies, series)


@pytest.fixture(scope="module")
def characters() -> Tensor:
    """(class, drawing, 1, 28, 28): three characters to know, and three others."""
    return generate(characters=6, drawings=11).images.reshape(6, 11, 1, 28, 28)


@pytest.fixture(scope="module")
def rejecting(characters: Tensor) -> FewShotClassifier:
    images, names = characters[:3, :7].flatten(0, 1), [name for name in "abc" for _ in range(7)]
    return FewShotClassifier("omniglot-5way", reject=0.05).fit(images, names)


def test_noise_and_other_characters_are_none_of_these(rejecting: FewShotClassifier, characters: Tensor) -> None:
    """Of 12 known drawings most keep their class; noise keeps none, and of 33 other drawings most are rejected."""
    assert rejecting.classes_.tolist() == ["a", "b", "c", "none of these"]
    known = rejecting.predict(characters[:3, 7:].flatten(0, 1))
    assert (known == np.repeat(["a", "b", "c"], 4)).mean() > 0.7
    noise = torch.randint(0, 256, (10, 1, 28, 28), dtype=torch.uint8, generator=seeded())
    assert set(rejecting.predict(noise)) == {"none of these"}
    others = rejecting.predict(characters[3:].flatten(0, 1))
    assert (others == "none of these").mean() > 0.5


def test_without_reject_everything_gets_a_class(rejecting: FewShotClassifier, characters: Tensor) -> None:
    """The probabilities of the classes have the same proportions with and without rejection."""
    plain = FewShotClassifier("omniglot-5way").fit(characters[:3, :7].flatten(0, 1), list(7 * "a" + 7 * "b" + 7 * "c"))
    queries = characters[3:, 0]
    without, with_none = plain.predict_proba(queries), rejecting.predict_proba(queries)
    assert without.shape == (3, 3)
    np.testing.assert_allclose(with_none.sum(1), 1, rtol=1e-6)
    shares = with_none[:, :3] / (1 - with_none[:, 3:])
    np.testing.assert_allclose(shares, without, rtol=1e-3, atol=1e-6)


def test_a_rejection_outlives_files_and_pickles(
    rejecting: FewShotClassifier, characters: Tensor, tmp_path: Path
) -> None:
    queries = characters[1:5, 8]
    expected = rejecting.predict_proba(queries)
    rejecting.save(tmp_path / "c.safetensors")
    for copy in (FewShotClassifier.load(tmp_path / "c.safetensors"), pickle.loads(pickle.dumps(rejecting))):
        assert copy.reject == 0.05
        np.testing.assert_allclose(copy.predict_proba(queries), expected, rtol=1e-4, atol=1e-6)


def test_an_exported_program_rejects_too(rejecting: FewShotClassifier, characters: Tensor, tmp_path: Path) -> None:
    """Its probabilities are compared with the classifier's when it is written."""
    info = rejecting.export(tmp_path / "c.pt2")
    assert info.classes == ["a", "b", "c", "none of these"]
    program = torch.export.load(str(tmp_path / "c.pt2")).module()
    query = characters[4:5, 8] / 255
    np.testing.assert_allclose(
        program(query).detach().numpy(), rejecting.predict_proba(characters[4:5, 8]), rtol=1e-3, atol=1e-5
    )


def test_folders_that_are_not_classes_are_none_of_these(
    rejecting: FewShotClassifier, characters: Tensor, tmp_path: Path
) -> None:
    from PIL import Image

    for number, folder in ((0, "a"), (4, "tree")):
        (tmp_path / folder).mkdir()
        Image.fromarray(characters[number, 9, 0].numpy()).save(tmp_path / folder / "1.png")
    labelled = label_pictures(rejecting, tmp_path)
    assert labelled.truth == ("a", "none of these")
    assert labelled.probabilities.shape == (2, 4)


def test_rejection_labels_every_image_alone(characters: Tensor) -> None:
    with pytest.raises(ConfigError, match="fit with transductive=False"):
        FewShotClassifier("omniglot-5way", reject=0.05, transductive=True).fit(characters[:2, 0], ["a", "b"])


@pytest.mark.parametrize(
    "damage",
    [
        {"centre": [0.0]},
        {"means": [[0.0, 0.0]]},
        {"threshold": "0"},
        {"spread": [1.0, 0.0, 1.0]},
        {"rate": 1.0},
        {"centre": [float("inf"), 0.0, 0.0]},
        {"threshold": 1},
    ],
)
def test_a_damaged_rejection_is_refused(damage: dict[str, object]) -> None:
    means = torch.zeros(3, 3).double()
    sound = calibrated(found_of(torch.randn(9, 3, generator=seeded()).double(), means), means, 0.05)
    assert Rejection.from_json(sound.to_json()) == sound
    with pytest.raises((TypeError, ValueError)):
        Rejection.from_json(sound.to_json() | damage)
