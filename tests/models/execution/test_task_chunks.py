"""Tasks in pieces: the same result whatever the size, and smaller ones where memory runs out."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch

from tests.easy import TINY, easy_store, shaken, skip_without_native, small_config
from torchreptile.algorithms.build import algorithm_class, build_algorithm
from torchreptile.core.config.algorithm_table import algorithm_names
from torchreptile.data.samplers import EpisodeSampler
from torchreptile.models.execution import task_chunks as chunks
from torchreptile.models.execution.task_chunks import ChunkSizes, TaskChunks, saved_bytes, total_memory

CPU = torch.device("cpu")
OF_ONE_KIND = ("matching", "protonet", "pretrained", "mann", "meta-lstm")  # executed in their own way


def sizes(limit: int, tasks: slice) -> list[int]:
    return TaskChunks(limit, CPU).map(tasks, lambda part: part.stop - part.start)


def test_pieces_cover_all_tasks_in_equal_parts_where_that_is_possible() -> None:
    assert sizes(3, slice(0, 7)) == [3, 3, 1]
    assert sizes(5, slice(0, 7)) == [4, 3]
    assert sizes(20, slice(0, 50)) == [10] * 5
    assert sizes(20, slice(0, 100)) == [20] * 5
    assert sizes(0, slice(0, 7)) == [7]
    assert sizes(9, slice(2, 7)) == [5]
    assert sizes(2, slice(5, 5)) == []
    assert TaskChunks(3, CPU).map(slice(4, 8), lambda part: part) == [slice(4, 6), slice(6, 8)]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_what_does_not_fit_is_done_again_in_halves(error: Exception) -> None:
    done: list[int] = []

    def work(part: slice) -> int:
        if part.stop - part.start > 2:
            raise error
        done.extend(range(part.start, part.stop))
        return part.stop - part.start

    chunked = TaskChunks(0, CPU)
    with pytest.warns(UserWarning, match="do not fit into memory") as warned:
        assert chunked.map(slice(0, 8), work) == [2, 2, 2, 2]
    assert [str(warning.message).partition(" (")[0] for warning in warned] == [
        "8 tasks at a time do not fit into memory; continuing with 4",
        "4 tasks at a time do not fit into memory; continuing with 2",
    ]
    assert done == list(range(8))
    assert chunked.limit == 2


def test_work_that_streams_through_memory_is_done_in_pieces_that_caches_hold() -> None:
    mib = 2**20
    for bytes_per_task, streams, limit in (
        (500 * mib, True, 1), (20 * mib, True, 3), (0, True, chunks.CPU_TASKS), (20 * mib, False, chunks.CPU_TASKS),
    ):  # fmt: skip
        chunked = TaskChunks(0, CPU)
        chunked.fit(bytes_per_task, streams)
        assert chunked.limit == limit
    assert [name for name in algorithm_names() if algorithm_class(name).streams] == [
        "matching",
        "protonet",
        "pretrained",
        "meta-lstm",
    ]


def test_other_errors_and_a_single_task_too_large_are_not_hidden() -> None:
    def fail(part: slice) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        TaskChunks(0, CPU).map(slice(0, 4), fail)

    def too_large(part: slice) -> None:
        raise torch.OutOfMemoryError("too large")

    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="do not fit"):
        TaskChunks(0, CPU).map(slice(0, 4), too_large)


def test_the_limit_follows_from_the_memory_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CGROUP_LIMIT", tmp_path / "memory.max")
    assert total_memory(CPU) > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert total_memory(CPU) > 2**28
    (tmp_path / "memory.max").write_text(f"{2**20}\n")
    assert total_memory(CPU) == 2**20
    for bytes_per_task, limit in ((2**16, 4), (2**20, 1), (0, chunks.CPU_TASKS)):
        automatic, asked = TaskChunks(0, CPU), TaskChunks(7, CPU)
        automatic.fit(bytes_per_task)
        asked.fit(bytes_per_task)
        assert (automatic.limit, asked.limit) == (limit, 7)


def test_a_resumed_run_keeps_its_sizes_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "total_memory", lambda device: 400)
    resumed = TaskChunks(0, CPU, ChunkSizes(7, 3))
    assert resumed.sizes == (7, 3)  # though nothing has been computed yet
    resumed.fit(10)
    resumed.fit_steps(5)
    assert (resumed.limit, resumed.steps) == (7, 3)
    resumed = TaskChunks(0, CPU, ChunkSizes(7, 3))
    warned = (
        "^the run was computed with {} until now, which do not fit into memory here; it continues with {}, so sums may "
        "be rounded differently$"
    )
    with pytest.warns(UserWarning, match=warned.format("7 tasks at a time", 4)):
        resumed.fit(25)  # of which four fit into a quarter of the memory
    with pytest.warns(UserWarning, match=warned.format("3 inner steps' graphs at a time", 2)):
        resumed.fit_steps(2)
    assert resumed.sizes == (4, 2)


def test_a_requested_size_that_did_not_fit_stays_reduced() -> None:
    assert TaskChunks(8, CPU, ChunkSizes(4)).limit == 4
    assert TaskChunks(8, CPU, ChunkSizes()).limit == 8


def test_processes_take_the_smallest_of_their_sizes() -> None:
    shared = TaskChunks(0, CPU, agree=lambda size: min(size, 6))
    shared.fit(1)
    shared.fit_steps(9)
    assert shared.sizes == (6, 6)


def test_saved_bytes_counts_what_the_backward_pass_needs() -> None:
    x, w = torch.rand(10, 100), torch.rand(100, 30, requires_grad=True)
    assert saved_bytes(lambda: (x @ w).relu().sum()) >= x.nbytes + 10 * 30 * 4
    assert saved_bytes(lambda: (x @ w.detach()).relu().sum()) == 0


@pytest.mark.parametrize(
    ("algorithm_name", "execution"),
    [
        *product(
            [name for name in algorithm_names() if name not in OF_ONE_KIND], ["loop", "grouped", "matmul", "vmap"]
        ),
        *product(["reptile", "foml"], ["native"]),  # which has no other network than theirs
        *product(OF_ONE_KIND, ["grouped"]),
    ],
)
def test_chunks_change_nothing_but_rounding(algorithm_name: str, execution: str) -> None:
    """SGD in float64: meta-gradient to 1e-10, and the same labels."""
    skip_without_native(execution)
    results = []
    for chunk in (0, 2, 1):
        config = small_config(
            algorithm=algorithm_name, inner_optimizer="sgd", inner_lr=0.1, task_chunk=chunk, execution=execution
        )
        algorithm = build_algorithm(config, TINY, CPU, classes=30)
        state = algorithm.begin(0).mapped(torch.Tensor.double)
        state = replace(state, params=shaken(state.params))
        store, generator = easy_store(30, 20, shape=TINY, noise=2.0), torch.Generator().manual_seed(3)
        sampler = algorithm.sampler(store)
        sampler.dtype = torch.float64
        gradients = algorithm.meta_gradient(state, sampler.sample(5, generator), generator)
        episodes = EpisodeSampler(store, 3, 1, 2, torch.float64).sample(5, generator)
        results.append((gradients, algorithm.predict(state, episodes, generator)))
    reference, labels = results[0]
    for gradients, predictions in results[1:]:
        if predictions.transductive is not None:
            assert labels.transductive is not None
            assert torch.equal(predictions.transductive, labels.transductive)
        assert torch.equal(predictions.inductive, labels.inductive)
        assert float(gradients.loss) == pytest.approx(float(reference.loss), abs=1e-10)
        for name, g in reference.gradient.items():
            torch.testing.assert_close(gradients.gradient[name], g, rtol=0, atol=1e-10)
        for name, average in reference.averages.items():
            torch.testing.assert_close(gradients.averages[name], average, rtol=0, atol=1e-10)
