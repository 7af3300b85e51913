"""Samplers of functions: the ranges that were published, rows of tables by index, standardised."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tests.functions import table_store
from torchreptile.core.errors import DataError
from torchreptile.data.episodes import Episodes
from torchreptile.data.functions.sine import sines
from torchreptile.data.samplers import EpisodeSampler, RowSampler, SineSampler, sampler_of


def drawn(dataset: str, tasks: int = 2000, shots: int = 10, queries: int = 50) -> Episodes:
    return SineSampler(sines(dataset), shots, queries, torch.float64).sample(tasks, torch.Generator().manual_seed(0))


def wave(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude and phase (0 to 2 pi) of each task, by least squares on sin x and cos x; every point lies on it."""
    terms = torch.cat([x.sin(), x.cos()], dim=2)
    weights = torch.linalg.lstsq(terms, y).solution
    assert float((terms @ weights - y).abs().max()) < 1e-9
    return weights.norm(dim=1).squeeze(1), torch.atan2(weights[:, 1], weights[:, 0]).squeeze(1) % (2 * math.pi)


@pytest.mark.parametrize(("dataset", "largest"), [("sine", 2 * math.pi), ("sine-maml", math.pi)])
def test_waves_are_drawn_from_the_published_ranges(dataset: str, largest: float) -> None:
    """Amplitude from U[0.1, 5], phase from U[0, 2 pi] or U[0, pi]: ends and quartiles, 2,000 waves."""
    episodes = drawn(dataset)
    amplitude, phase = wave(episodes.query_x, episodes.query_y)
    again, _ = wave(episodes.support_x, episodes.support_y)
    torch.testing.assert_close(again, amplitude)  # support and query are of one wave
    for values, low, high in ((amplitude, 0.1, 5.0), (phase, 0.0, largest)):
        assert low <= float(values.min()) < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < float(values.max()) <= high
        quartiles = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
        for share, quartile in zip((0.25, 0.5, 0.75), quartiles.tolist(), strict=True):
            assert quartile == pytest.approx(low + share * (high - low), abs=0.04 * (high - low))


def test_points_of_reptiles_waves_are_evenly_spaced() -> None:
    """Support points are 10 of 50, never one twice; the queries are all over the curve."""
    episodes = drawn("sine", tasks=50)
    grid = torch.linspace(-5, 5, 50, dtype=torch.float64)
    torch.testing.assert_close(episodes.query_x, grid[None, :, None].expand(50, -1, -1))
    nearest = (episodes.support_x.squeeze(2)[:, :, None] - grid).abs()
    assert float(nearest.min(2).values.max()) < 1e-12
    assert all(len(set(row)) == 10 for row in nearest.argmin(2).tolist())
    all_points = drawn("sine", tasks=3, shots=50)
    torch.testing.assert_close(all_points.support_x.sort(1).values, all_points.query_x)
    with pytest.raises(DataError, match="sine has 50 points per task, too few for 51"):
        drawn("sine", shots=51)


def test_points_of_mamls_waves_are_anywhere() -> None:
    episodes = drawn("sine-maml", tasks=200)
    for x in (episodes.support_x, episodes.query_x):
        assert -5 <= float(x.min()) < -4.9
        assert 4.9 < float(x.max()) <= 5
        assert x.unique().numel() > 0.99 * x.numel()  # of 2 ** 24 places


def test_same_seed_same_waves_in_either_precision() -> None:
    one, two = (
        SineSampler(sines("sine"), 5, 5, dtype).sample(4, torch.Generator().manual_seed(2))
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(one.query_y.double(), two.query_y, rtol=0, atol=1e-5)


def test_rows_of_one_task_each_once_standardised() -> None:
    store = table_store()
    sampler = sampler_of(store, 1, 4, 3)
    assert isinstance(sampler, RowSampler)
    episodes = sampler.sample(300, torch.Generator().manual_seed(0))
    assert (episodes.support_x.shape, episodes.query_x.shape) == ((300, 4, 2), (300, 3, 2))
    assert (episodes.support_y.shape, episodes.query_y.shape) == ((300, 4, 1), (300, 3, 1))
    ends = store.task_sizes.cumsum(0).tolist()
    seen = set()
    x = store.scale.own_x(torch.cat([episodes.support_x, episodes.query_x], dim=1).double())
    y = store.scale.own_y(torch.cat([episodes.support_y, episodes.query_y], dim=1).double())
    for task, points, values in zip(episodes.classes[:, 0].tolist(), x, y, strict=True):
        distance = (store.x[None] - points[:, None]).abs().sum(2)
        rows = distance.argmin(1).tolist()
        assert float(distance.min(1).values.max()) < 1e-4
        torch.testing.assert_close(store.y[rows], values, rtol=0, atol=1e-2)
        assert len(set(rows)) == 7
        start = ends[task] - int(store.task_sizes[task])
        assert all(start <= row < ends[task] for row in rows)
        seen |= {task}
    assert seen == set(range(len(store)))


def test_a_task_with_too_few_rows_is_named() -> None:
    with pytest.raises(DataError, match=r"task t1 of made has 8 rows; 6 shots \+ 3 queries need 9 .*too few: 2"):
        sampler_of(table_store(), 1, 6, 3)


def test_images_have_the_sampler_they_had(store: object) -> None:
    assert isinstance(sampler_of(store, 5, 1, 1), EpisodeSampler)
