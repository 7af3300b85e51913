"""EpisodeSampler: what a task promises, on stores where every image tells its class and its number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchreptile.core.errors import DataError
from torchreptile.data.episodes import Episodes
from torchreptile.data.image_store import ImageStore
from torchreptile.data.samplers import EpisodeSampler


def numbered_store(sizes: list[int]) -> ImageStore:
    """1 x 1 x 2 images whose pixels are (class, number within the class)."""
    pixels = [(c, i) for c, size in enumerate(sizes) for i in range(size)]
    return ImageStore(
        images=torch.tensor(pixels, dtype=torch.uint8).view(-1, 1, 1, 2),
        class_sizes=torch.tensor(sizes),
        class_names=tuple(f"class{c}" for c in range(len(sizes))),
        name="numbered",
    )


def drawn(images: torch.Tensor) -> list[list[tuple[int, int]]]:
    """(T, N, 1, 1, 2) pixels -> per task, the (class, number) of every image."""
    return [[(c, i) for c, i in task] for task in images.flatten(2).mul(255).round().int().tolist()]


def episodes_of(sizes: list[int], way: int, shots: int, queries: int, seed: int = 0, tasks: int = 20) -> Episodes:
    sampler = EpisodeSampler(numbered_store(sizes), way, shots, queries)
    return sampler.sample(tasks, torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shots=st.integers(1, 4), queries=st.integers(0, 3), seed=st.integers(0, 2**31))
def test_every_task_keeps_its_promises(data: st.DataObject, shots: int, queries: int, seed: int) -> None:
    """Classes of unequal sizes, some with not one image to spare."""
    sizes = data.draw(st.lists(st.integers(shots + queries, 12), min_size=2, max_size=8))
    way = data.draw(st.integers(2, len(sizes)))
    episodes = episodes_of(sizes, way, shots, queries, seed)
    assert episodes.support_x.shape == (20, way * shots, 1, 1, 2)
    assert episodes.query_x.shape == (20, way * queries, 1, 1, 2)
    for task, (support, query) in enumerate(zip(drawn(episodes.support_x), drawn(episodes.query_x), strict=True)):
        images = support + query
        assert len(set(images)) == len(images)  # no image twice, none both in support and query
        assert all(number < sizes[c] for c, number in images)  # none beyond its class
        classes = [support[label * shots][0] for label in range(way)]
        assert len(set(classes)) == way
        for (c, _), label in zip(support, episodes.support_y[task].tolist(), strict=True):
            assert classes[label] == c
        for (c, _), label in zip(query, episodes.query_y[task].tolist(), strict=True):
            assert classes[label] == c
        assert sorted(episodes.support_y[task].tolist()) == sorted(list(range(way)) * shots)


def test_every_class_and_every_label_of_it_is_equally_likely() -> None:
    """Chi-square over (class, label) pairs; classes of unequal sizes count alike."""
    episodes = episodes_of([4, 4, 12, 30, 5, 4], way=3, shots=1, queries=0, tasks=6000)
    pairs = torch.zeros(6, 3)
    for task in drawn(episodes.support_x):
        for label, (c, _) in enumerate(task):
            pairs[c, label] += 1
    expected = 6000 / 6  # of each class under each label
    assert float(((pairs - expected) ** 2 / expected).sum()) < 38  # about 15 degrees of freedom, 1 seed in a thousand


def test_every_image_of_a_class_is_equally_likely_in_support_and_query() -> None:
    episodes = episodes_of([5, 8], way=2, shots=1, queries=1, tasks=4000)
    for images in (episodes.support_x, episodes.query_x):
        for c, size in enumerate([5, 8]):
            counts = torch.zeros(size)
            for task in drawn(images):
                counts += sum(torch.eye(size)[number] for own, number in task if own == c)
            expected = 4000 / size
            assert float(((counts - expected) ** 2 / expected).sum()) < 25  # at most 7 degrees of freedom


def test_pixels_are_from_0_to_1_in_the_asked_dtype() -> None:
    store = ImageStore(
        torch.tensor([0, 255, 51, 102]).to(torch.uint8).view(4, 1, 1, 1), torch.tensor([2, 2]), ("a", "b"), "x"
    )
    for dtype in (torch.float32, torch.float64):
        episodes = EpisodeSampler(store, 2, 2, 0, dtype).sample(1, torch.Generator().manual_seed(0))
        assert episodes.support_x.dtype == dtype
        expected = torch.tensor([0, 0.2, 0.4, 1], dtype=dtype)
        torch.testing.assert_close(episodes.support_x.flatten().sort().values, expected)


def test_the_seed_decides_everything() -> None:
    first, again, other = (episodes_of([9] * 6, 3, 2, 1, seed) for seed in (0, 0, 1))
    assert torch.equal(first.support_x, again.support_x)
    assert torch.equal(first.query_x, again.query_x)
    assert not torch.equal(first.support_x, other.support_x)


def test_slices_are_these_tasks() -> None:
    episodes = episodes_of([9] * 6, 3, 2, 1)
    part = episodes[3:5]
    assert (len(episodes), len(part)) == (20, 2)
    for name in ("support_x", "support_y", "query_x", "query_y"):
        assert torch.equal(getattr(part, name), getattr(episodes, name)[3:5])


def test_a_small_class_is_named_with_its_count() -> None:
    with pytest.raises(DataError, match=r"class class1 of numbered has 3 images; 2 shots \+ 2 queries need 4"):
        EpisodeSampler(numbered_store([9, 3, 9]), 2, 2, 2)
    EpisodeSampler(numbered_store([9, 4, 9]), 2, 2, 2)


def test_too_few_classes_are_counted() -> None:
    with pytest.raises(DataError, match="numbered has 3 classes here, too few for 4-way tasks"):
        EpisodeSampler(numbered_store([9, 9, 9]), 4, 1, 1)
    EpisodeSampler(numbered_store([9, 9, 9]), 3, 1, 1)
