"""The bench: that it measures what it says, on work of milliseconds; how fast things are is not tested."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.easy import TINY, small_config
from torchreptile import cli
from torchreptile.core.errors import ConfigError
from torchreptile.experiments.benchmark import bench as benching
from torchreptile.experiments.benchmark.bench import bench
from torchreptile.experiments.benchmark.workloads import NAIVE, Candidate, naive_outer_steps, outer_steps
from torchreptile.experiments.reports.benchmark_plot import draw_bench
from torchreptile.models.conv4.network import for_images

CPU = torch.device("cpu")
CANDIDATES = [Candidate(NAIVE), Candidate("grouped"), Candidate("loop", "bf16")]


def test_numbers_hang_together() -> None:
    result = bench(small_config(), TINY, CANDIDATES, CPU, rounds=4, memory=False)
    assert {timing.candidate for timing in result.timings} == set(CANDIDATES)
    assert not result.refused
    steps = 3 * 3  # tasks x inner steps
    naive = next(timing.outer_step_ms for timing in result.timings if timing.candidate.execution == NAIVE)
    for timing in result.timings:
        low, high = timing.quartiles_ms
        assert low <= timing.outer_step_ms <= high
        assert timing.task_step_ms == pytest.approx(timing.outer_step_ms / steps)
        assert timing.images_per_second == pytest.approx(5 * steps / timing.outer_step_ms * 1000)
        assert timing.peak_share == pytest.approx(
            result.step_gflop * steps / timing.outer_step_ms * 1000 / result.peak_gflops
        )
        assert timing.speedup == pytest.approx(naive / timing.outer_step_ms)
        assert timing.peak_mib is None
        assert (timing.outside is None) == (timing.candidate.execution == NAIVE)
        assert timing.outside is None or timing.outside < 1
    assert [t.outer_step_ms for t in result.timings] == sorted(t.outer_step_ms for t in result.timings)
    assert json.loads(result.to_json())["timings"][0]["candidate"]["execution"]
    assert draw_bench(result).startswith(b"\x89PNG")


def test_arithmetic_is_counted_once_per_layer() -> None:
    """Omniglot's network by hand: 3 passes over each product, but no gradient for the images."""
    rows, products = [1960, 490, 160, 40], [9 * 64, 576 * 64, 576 * 64, 576 * 64]
    forward = [2 * r * p for r, p in zip(rows, products, strict=True)] + [2 * 10 * 256 * 5]
    expected = 3 * sum(forward) - forward[0]
    config = small_config(way=5, inner_batch=10)
    assert benching._step_gflop(config, (1, 28, 28), for_images) == pytest.approx(expected / 1e9, rel=1e-6)


@pytest.mark.parametrize("execution", [NAIVE, "grouped"])
def test_every_call_is_an_outer_step_that_learns(execution: str) -> None:
    """The same work by both: losses are not compared, since the naive loop resets Adam, as people write it."""
    config = small_config()
    if execution == NAIVE:
        assert naive_outer_steps(config, TINY, CPU)() is None
        return
    work = outer_steps(config, TINY, Candidate(execution), CPU)
    first = {name: p.clone() for name, p in work().params.items()}
    second = work()
    assert int(second.inner.steps) == 2 * config.outer.meta_batch * config.inner.inner_steps  # of all tasks
    assert not torch.equal(first["head.weight"], second.params["head.weight"])


def test_memory_is_measured_apart() -> None:
    result = bench(small_config(), TINY, CANDIDATES[:1], CPU, rounds=3)
    assert result.timings[0].peak_mib is not None
    assert 0 <= result.timings[0].peak_mib < 500


def test_what_cannot_run_is_named_and_too_few_rounds_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no such kernel\nand a long story")

    monkeypatch.setattr(benching, "naive_outer_steps", broken)
    result = bench(small_config(), TINY, CANDIDATES[:2], CPU, rounds=3, memory=False)
    assert result.refused == {"naive fp32": "no such kernel"}
    assert result.timings[0].speedup is None
    with pytest.raises(ConfigError, match="nothing to measure"):
        bench(small_config(), TINY, CANDIDATES[:1], CPU, rounds=3)
    with pytest.raises(ConfigError, match="rounds is 2"):
        bench(small_config(), TINY, CANDIDATES, CPU, rounds=2)


def test_the_command_prints_and_leaves_numbers_and_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "bench --executions naive grouped --precisions fp32 --rounds 3 --meta-batch 1 --inner-steps 1 --no-memory"
    command = cli.parse([*words.split(), "--device", "cpu", "--out", str(tmp_path / "b")])
    assert command.run() == 0
    shown, progress = capsys.readouterr()
    assert [line.partition(":")[0] for line in progress.splitlines()] == ["naive fp32", "grouped fp32"]  # as it goes
    assert "grouped fp32" in shown
    assert "vs naive" in shown
    assert json.loads((tmp_path / "b" / "omniglot.json").read_text())["rounds"] == 3
    assert (tmp_path / "b" / "omniglot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="unknown execution warp; available: naive, loop"):
        cli.parse(["bench", "--executions", "warp"]).run()
