"""Glyphs: the pixels against the seed, and the drawings against what Omniglot's drawings are like."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from torchreptile.core.errors import ConfigError
from torchreptile.data import glyphs
from torchreptile.data.image_store import ImageStore


@pytest.fixture(scope="module")
def store() -> ImageStore:
    """Three alphabets and a bit."""
    return glyphs.generate(characters=100, drawings=10, seed=3)


def drawings(store: ImageStore) -> Tensor:
    """(K, D, 28, 28) bool: where the ink is."""
    return store.images.view(len(store), -1, 28, 28) == 0


def test_one_seed_gives_one_store() -> None:
    """Two runs with one seed against each other: names, sizes and every pixel."""
    first, second = (glyphs.generate(characters=40, drawings=3, seed=5) for _ in range(2))
    assert first.fingerprint == second.fingerprint


def test_seeds_differ() -> None:
    """Two seeds against each other: no character is drawn the same."""
    first, second = (glyphs.generate(characters=40, drawings=3, seed=seed).images.view(40, -1) for seed in (5, 6))
    assert (first != second).any(dim=1).all()


def test_global_random_state_is_left_alone() -> None:
    """The numbers torch's own generator gives after generating against those it gives without."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    glyphs.generate(characters=2, drawings=2)
    assert torch.equal(torch.rand(3), expected)


def test_format(store: ImageStore) -> None:
    """Shape, type, values and names against what the data set promises."""
    assert store.images.shape == (1000, 1, 28, 28)
    assert store.images.dtype == torch.uint8
    assert set(store.images.flatten().tolist()) == {0, 255}
    assert store.class_sizes.tolist() == [10] * 100
    assert store.name == "glyphs"
    assert store.class_names[:2] == ("glyphs/0000", "glyphs/0001")


def test_no_drawing_is_blank_or_a_copy(store: ImageStore) -> None:
    """Every drawing against blank paper, and against every other drawing of every class."""
    assert drawings(store).any(dim=-1).any(dim=-1).all()
    assert len({image.numpy().tobytes() for image in store.images}) == len(store.images)


def test_ink_is_like_omniglot(store: ImageStore) -> None:
    """Ink against Omniglot at 28 x 28: 8.3 % of the pixels, 2.6 points between classes, 1.4 within one."""
    fraction = drawings(store).float().mean(dim=(2, 3))
    assert 0.073 < fraction.mean() < 0.093
    assert 0.018 < fraction.mean(dim=1).std() < 0.034
    assert 0.010 < fraction.var(dim=1).mean().sqrt() < 0.018


def test_strokes_are_as_thin_as_omniglot(store: ImageStore) -> None:
    """Black 2 x 2 squares per black pixel against Omniglot's 0.18: a line two pixels wide would have 0.5."""
    ink = drawings(store).flatten(0, 1)
    squares = (ink[:, 1:, 1:] & ink[:, 1:, :-1] & ink[:, :-1, 1:] & ink[:, :-1, :-1]).sum()
    assert 0.12 < squares / ink.sum() < 0.24


def test_characters_are_as_large_as_omniglot(store: ImageStore) -> None:
    """The longer side of the box around the ink against Omniglot's: 17.7 pixels in the mean."""
    ink = drawings(store).flatten(0, 1)
    sides = []
    for axis in (1, 2):
        lines = ink.any(dim=axis).int()
        sides.append(28 - lines.argmax(dim=1) - lines.flip(1).argmax(dim=1))
    assert 16.2 < torch.maximum(*sides).float().mean() < 19.2


def test_classes_are_learnable(store: ImageStore) -> None:
    """Nearest class mean on coarse pixels, half the drawings against the other half: chance is 1 %."""
    coarse = avg_pool2d(drawings(store).float(), 4).flatten(2)
    means, unseen = coarse[:, :5].mean(dim=1), coarse[:, 5:].flatten(0, 1)
    found = torch.cdist(unseen, means).argmin(dim=1).view(100, 5)
    assert (found == torch.arange(100)[:, None]).float().mean() > 0.4


def test_drawings_of_a_class_vary(store: ImageStore) -> None:
    """Distances within a class against those between classes: near Omniglot's ratio of 0.77, far from copies."""
    coarse = avg_pool2d(drawings(store).float(), 4).flatten(2)
    within = (coarse[:, 0] - coarse[:, 1]).norm(dim=1).mean()
    between = (coarse[:, 0] - coarse[:, 1].roll(50, dims=0)).norm(dim=1).mean()
    assert 0.6 < within / between < 0.9


def test_smallest_store() -> None:
    """One drawing of one character against its shape."""
    assert glyphs.generate(characters=1, drawings=1).images.shape == (1, 1, 28, 28)


@pytest.mark.parametrize("wrong", [{"characters": 0}, {"drawings": 0}, {"seed": -1}])
def test_bad_values_are_refused_by_name(wrong: dict[str, int]) -> None:
    """A value out of range against the message: it names the argument and the value."""
    (name, value), *_ = wrong.items()
    with pytest.raises(ConfigError, match=f"{name} = {value}"):
        glyphs.generate(**{"characters": 2, "drawings": 2} | wrong)


def test_load_makes_the_store_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second load against the first: the same data from the cache, and no second generation."""
    made = glyphs.generate(characters=3, drawings=2)
    asked = []

    def small() -> ImageStore:
        asked.append(True)
        return made

    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path))
    monkeypatch.setattr(glyphs, "generate", small)
    assert glyphs.load().fingerprint == glyphs.load().fingerprint == made.fingerprint
    assert len(asked) == 1
    assert (tmp_path / "glyphs-v1.safetensors").is_file()
