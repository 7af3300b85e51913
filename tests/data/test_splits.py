"""How classes are divided: published sizes, nothing in two splits, the seed where it counts."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from tests.easy import REPOSITORY
from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.image_store import ImageStore
from torchreptile.data.leakage import find_duplicates
from torchreptile.data.loading import load_splits
from torchreptile.data.omniglot import dataset as omniglot
from torchreptile.data.splits import SPLIT_SCHEMES, MissingSplit, Splits, mapped

REAL = Path(os.environ.get("TORCHREPTILE_DATA") or REPOSITORY.parent / "shared" / "data").resolve()


def blank(classes: int) -> ImageStore:
    """One pixel for each class, its value unique among neighbours: enough to split."""
    names = [name for archive in omniglot.official().archives for name in archive.members()]
    return ImageStore(
        images=torch.arange(classes).to(torch.uint8).view(-1, 1, 1, 1),
        class_sizes=torch.ones(classes, dtype=torch.int64),
        class_names=tuple(sorted(names, key=lambda name: name.split("/"))[:classes]),
        name="omniglot",
    )


def base_characters(splits: Splits) -> tuple[set[str], set[str], set[str]]:
    """The characters of (train, val, test); those of a part that is rotated have all four rotations."""
    found = []
    for part in (splits.train, splits.val, splits.test):
        names = part.class_names if isinstance(part, ImageStore) else ()
        characters = {name.rsplit("/rot", 1)[0] for name in names}
        assert len(names) == len(characters) * (4 if part in rotated(splits) else 1)
        found.append(characters)
    train, val, test = found
    return train, val, test


def rotated(splits: Splits) -> list[ImageStore]:
    """The parts whose classes are rotations."""
    parts = [part for part in (splits.train, splits.val, splits.test) if isinstance(part, ImageStore)]
    return [part for part in parts if any("/rot" in name for name in part.class_names)]


def test_the_embedded_layout_is_the_published_one() -> None:
    background, evaluation = omniglot.official().archives
    assert (len(background.alphabets), len(evaluation.alphabets)) == (30, 20)
    assert (len(background.members()), len(evaluation.members())) == (964, 659)
    numbers = [first + i for a in (background, evaluation) for first, size in a.alphabets.values() for i in range(size)]
    assert sorted(numbers) == list(range(1, 1624))


@pytest.mark.parametrize(
    ("scheme", "sizes"),
    [
        ("reptile", (1200, 0, 423)),
        ("vinyals", (1028, 172, 423)),
        ("vinyals-rotated", (1028, 172, 423)),
        ("maml", (1100, 100, 423)),
        ("background-evaluation", (964, 0, 659)),
    ],
)
def test_splits_have_the_published_sizes_and_share_no_character(scheme: str, sizes: tuple[int, int, int]) -> None:
    splits = omniglot.split(blank(1623), scheme, seed=0)
    train, val, test = base_characters(splits)
    assert (len(train), len(val), len(test)) == sizes
    assert len(train | val | test) == 1623
    assert (splits.val is None) == (not val)
    assert splits.has("val") == bool(val)
    if not val:
        with pytest.raises(DataError, match=f"omniglot divided by {scheme} has no val classes; take train or test"):
            splits.get("val")


@pytest.mark.parametrize("scheme", SPLIT_SCHEMES["omniglot"])
def test_training_classes_are_rotated_and_others_where_the_original_code_does_so(scheme: str) -> None:
    splits = omniglot.split(blank(1623), scheme, seed=0)
    assert len(rotated(splits)) == (3 if scheme in ("maml", "vinyals-rotated") else 1)


def test_the_rotated_splits_have_the_same_characters() -> None:
    plain, turned = (omniglot.split(blank(1623), scheme, seed=0) for scheme in ("vinyals", "vinyals-rotated"))
    assert base_characters(plain) == base_characters(turned)


def test_only_the_shuffled_splits_depend_on_the_seed() -> None:
    store = blank(1623)
    for scheme in SPLIT_SCHEMES["omniglot"]:
        tests = [omniglot.split(store, scheme, seed).test.class_names for seed in (0, 0, 1)]
        assert tests[0] == tests[1]
        assert (tests[0] != tests[2]) == (scheme in ("reptile", "maml"))


def test_the_evaluation_alphabets_are_the_test_classes() -> None:
    splits = omniglot.split(blank(1623), "background-evaluation", seed=0)
    alphabets = {name.split("/")[0] for name in splits.test.class_names}
    assert alphabets == set(omniglot.official().archives[1].alphabets)


def test_a_split_needs_all_of_omniglot() -> None:
    with pytest.raises(DataError, match="10 classes, but an Omniglot split needs all 1623"):
        omniglot.split(blank(10), "reptile", seed=0)


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="'lake' does not exist for omniglot; choose one of reptile, vinyals, vin"):
        omniglot.split(blank(1623), "lake", seed=0)


@pytest.mark.parametrize(
    ("dataset", "scheme", "message"),
    [
        ("mnist", "reptile", "dataset 'mnist' is unknown; choose one of omniglot, glyphs, mini-imagenet"),
        ("omniglot", "seed", "split scheme 'seed' does not exist for omniglot"),
        ("glyphs", "reptile", "split scheme 'reptile' does not exist for glyphs; choose one of seed"),
    ],
)
def test_load_splits_refuses_what_it_does_not_know(dataset: str, scheme: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_splits(TaskConfig(dataset=dataset, split_scheme=scheme))


def test_glyphs_are_split_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchreptile.data.glyphs.load", lambda: blank(1000))
    splits = load_splits(TaskConfig(dataset="glyphs", split_seed=3))
    train, val, test = base_characters(splits)
    assert (len(train), len(val), len(test)) == (600, 100, 300)
    assert len(train | val | test) == 1000
    assert load_splits(TaskConfig(dataset="glyphs", split_seed=4)).test.class_names != splits.test.class_names


def test_a_split_is_loaded_when_it_is_used_and_once() -> None:
    loaded = []

    def load() -> ImageStore:
        loaded.append(1)
        return blank(3)

    splits = Splits(blank(2), load, MissingSplit("no test pictures there"))
    assert (splits.has("val"), splits.has("test"), len(loaded)) == (True, False, 0)
    assert splits.get("val") is splits.val
    assert loaded == [1]
    assert len(splits.get("train")) == 2
    for use in (lambda: splits.test, lambda: splits.get("test")):
        with pytest.raises(DataError, match="no test pictures there"):
            use()


def test_duplicates_are_pairs_of_identical_images() -> None:
    store = blank(1623).select([5, 7, 5, 8, 7, 5])
    assert find_duplicates(store) == [(0, 2), (0, 5), (1, 4), (2, 5)]


@pytest.mark.skipif(
    not (REAL / "omniglot" / "splits-vinyals").is_dir(), reason=f"no splits-vinyals in {REAL / 'omniglot'}"
)
def test_vinyals_split_is_the_official_list() -> None:
    parts = base_characters(omniglot.split(blank(1623), "vinyals", seed=0))
    for part, ours in zip(("train", "val", "test"), parts, strict=True):
        lines = (REAL / "omniglot" / "splits-vinyals" / f"{part}.txt").read_text().split()
        assert ours == {line.rsplit("/rot", 1)[0] for line in lines}


def test_inverted_stores_are_what_the_learner_sees() -> None:
    task = TaskConfig(dataset="glyphs")
    plain, inverted = load_splits(task), load_splits(dataclasses.replace(task, inverted=True))
    assert torch.equal(inverted.test.images, 255 - plain.test.images)
    assert inverted.train.class_names == plain.train.class_names
    none = mapped(Splits(plain.train, MissingSplit("no val classes"), plain.test), ImageStore.inverted)
    assert none.val is None
    with pytest.raises(DataError, match="no val classes"):
        none.get("val")
