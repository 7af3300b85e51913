"""Pictures in two splits: every one is found and told, and left out of training on request alone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.easy import easy_store
from tests.pictures import make_divided, noise
from torchreptile.core.config import Config
from torchreptile.core.errors import DataError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.leakage import find_duplicates, find_leaks, without_leaks
from torchreptile.data.loading import load_splits
from torchreptile.data.splits import MissingSplit, Splits


def random_store(classes: int, seed: int, images: int = 4, side: int = 6) -> ImageStore:
    return easy_store(classes, images, seed, (1, 7, 7)) if side == 7 else ImageStore(
        torch.randint(0, 256, (classes * images, 3, side, side), dtype=torch.uint8,
                      generator=torch.Generator().manual_seed(seed)),
        torch.full((classes,), images), tuple(f"s{seed}c{n}" for n in range(classes)), f"store{seed}",
    )  # fmt: skip


def leaky() -> Splits:
    """Training images 1 and 6 are in test class 0 as well, 6 also in val; val image 2 is in test class 2."""
    train, val, test = (random_store(3, seed) for seed in range(3))
    test.images[0], test.images[3] = train.images[1], train.images[6]
    val.images[7] = train.images[6]
    test.images[9] = val.images[2]
    return Splits(train, val, test)


def test_every_pair_across_splits_is_found() -> None:
    found = [(e.split, e.image, e.class_name, e.other_split, e.other_class) for e in find_leaks(leaky()).found]
    assert found == [
        ("train", 6, "s0c1", "val", "s1c1"),
        ("train", 1, "s0c0", "test", "s2c0"),
        ("train", 6, "s0c1", "test", "s2c0"),
        ("val", 2, "s1c0", "test", "s2c2"),
        ("val", 7, "s1c1", "test", "s2c0"),
    ]


def test_they_are_those_that_a_slow_search_finds() -> None:
    splits = leaky()
    stores = {split: splits.get(split) for split in ("train", "val", "test")}
    one = ImageStore(
        torch.cat([store.images for store in stores.values()]), torch.full((9,), 4), ("c",) * 9, "all together"
    )
    pairs = {(i // 12, i % 12, j // 12) for i, j in find_duplicates(one) if i // 12 != j // 12}
    order = ["train", "val", "test"]
    assert {(order.index(e.split), e.image, order.index(e.other_split)) for e in find_leaks(splits).found} == pairs


def test_they_leave_training_alone_and_only_training() -> None:
    splits = leaky()
    left = without_leaks(splits.train, find_leaks(splits))
    assert left.class_sizes.tolist() == [3, 3, 4]
    remaining = [n for n in range(12) if n not in (1, 6)]
    assert torch.equal(left.images, splits.train.images[remaining])
    assert left.class_names == splits.train.class_names
    assert not find_leaks(Splits(left, MissingSplit(""), splits.test)).found


def test_the_message_counts_and_names_them() -> None:
    leaks = find_leaks(leaky())
    assert leaks.message(excluded=False) == (
        "5 identical pictures in two splits (train s0c1 = val s1c1, train s0c0 = test s2c0, train s0c1 = test s2c0, "
        "...); --exclude-duplicates leaves them out of training"
    )
    assert leaks.message(excluded=True).endswith("; 2 left out of training")
    clean = Splits(random_store(2, 5), MissingSplit("none"), random_store(2, 6))
    assert find_leaks(clean).message(excluded=False) == ""
    assert without_leaks(clean.train, find_leaks(clean)) is clean.train


def test_a_class_with_nothing_left_is_named() -> None:
    train = random_store(3, 0)
    splits = Splits(train, MissingSplit("none"), train.select([1]))
    with pytest.raises(DataError, match=r"every image of the training class s0c1 is also in .*--exclude-duplicates"):
        without_leaks(train, find_leaks(splits))


def test_a_split_that_cannot_be_read_does_not_stop_training() -> None:
    def broken() -> ImageStore:
        raise DataError("test.pkl is damaged")

    leaks = find_leaks(Splits(random_store(2, 0), random_store(2, 0), broken))
    assert len(leaks.found) == 8
    assert leaks.message(excluded=False).startswith("not compared with the other splits: test.pkl is damaged; 8 ident")


def test_rotated_training_classes_are_compared_as_they_are_trained_on() -> None:
    drawn, other = random_store(2, 0), random_store(2, 1)
    other.images[0] = torch.rot90(drawn.images[5], 1, (-2, -1))
    found = find_leaks(Splits(drawn.with_rotations(), MissingSplit("none"), other)).found
    assert [(each.image, each.class_name) for each in found] == [(8 + 5, "s0c1/rot090")]


def test_omniglots_size_takes_a_moment() -> None:
    def store(count: int, seed: int) -> ImageStore:
        images = torch.randint(
            0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
        )
        return ImageStore(images, torch.full((count // 20,), 20), ("c",) * (count // 20), "large")

    splits = Splits(store(96_000, 0), MissingSplit("none"), store(8_460, 1))
    start = time.monotonic()
    assert not find_leaks(splits).found
    assert time.monotonic() - start < 5  # 0.2 s where nothing else runs


def test_folders_are_compared_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHREPTILE_CACHE", str(tmp_path / "cache"))
    root = make_divided(tmp_path / "own", {"train": 2, "val": 2, "test": 2}, images=3)
    for place in ("train/train01/x.png", "test/test00/y.png"):
        noise(3).save(root / place)
    splits = load_splits(Config().replace(data=str(root), image_size=12).task)
    (leak,) = find_leaks(splits).found
    assert (leak.class_name, leak.other_split, leak.other_class) == ("train01", "test", "test00")
