"""Names of images: where they come from, and that they stay with their images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.easy import TINY, easy_store
from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import DataError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.own_images import dataset
from torchreptile.data.own_images.class_folders import scan_folders


@pytest.fixture
def named() -> ImageStore:
    """Four classes of three images, each named after its number, which is in its first pixel too."""
    store = easy_store(4, images=3, shape=TINY)
    images = store.images.clone()
    images[:, 0, 0, 0] = torch.arange(12)
    return replace(store, images=images, image_names=tuple(map(str, range(12))))


def matching(store: ImageStore) -> bool:
    """Whether every name is the number in its image."""
    return store.images[:, 0, 0, 0].tolist() == [int(name) for name in store.image_names]


def test_names_stay_with_their_images(named: ImageStore, tmp_path: Path) -> None:
    assert matching(named)
    assert matching(named.select([2, 0]))
    assert named.select([2, 0]).image_names == tuple("678012")
    assert matching(named.without([0, 4, 11]))
    turned = named.with_rotations()
    assert turned.image_names == 4 * named.image_names
    assert named.inverted().image_names == named.image_names
    named.save(tmp_path / "store.safetensors")
    loaded = ImageStore.load(tmp_path / "store.safetensors")
    assert loaded.image_names == named.image_names
    assert loaded.fingerprint == replace(named, image_names=()).fingerprint  # names are no data
    with pytest.raises(DataError, match="11 image names, but 12 images"):
        replace(named, image_names=named.image_names[1:])


def test_images_without_names_go_by_their_place(tmp_path: Path) -> None:
    store = easy_store(2, images=2, shape=TINY)
    assert store.names_of_images() == ("pattern00#0", "pattern00#1", "pattern01#0", "pattern01#1")
    store.save(tmp_path / "store.safetensors")
    assert ImageStore.load(tmp_path / "store.safetensors").image_names == ()
    assert store.select([1]).without([0]).with_rotations().image_names == ()


def test_own_images_are_named_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When they are decoded, and when they come from the cache; in every split."""
    from PIL import Image

    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path / "cache"))
    for label in range(5):
        for number in range(2):
            path = tmp_path / "own" / f"c{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 100 + 10 * label + number).save(path)
    for _ in range(2):
        splits = dataset.split(TaskConfig(data=str(tmp_path / "own"), image_size=8, grey=True))
        for store in (splits.train, splits.get("val"), splits.test):
            values = [100 + 10 * int(name[1]) + int(name[3]) for name in store.image_names]
            assert store.images[:, 0, 0, 0].tolist() == values
    assert set(scan_folders(tmp_path / "own").classes) == {f"c{label}" for label in range(5)}
