"""metrics.jsonl: appended line by line, cut back to what a checkpoint knows of."""

from __future__ import annotations

from pathlib import Path

from torchreptile.training.metrics_log import MetricsLog


def test_lines_are_on_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 0) as log:
        log.write({"step": 1, "loss": 0.5})
        assert path.read_text() == '{"step": 1, "loss": 0.5}\n'
        assert log.sync() == path.stat().st_size


def test_cut_back_then_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    with MetricsLog(path, 12) as log:
        log.write({"step": 3})
        assert log.sync() == 24
    assert path.read_text() == '{"step": 1}\n{"step": 3}\n'


def test_length_is_right_before_the_first_new_line(tmp_path: Path) -> None:
    """A checkpoint saved between resuming and the next line must know the length after the cut, not before it."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    with MetricsLog(path, 12) as log:
        assert log.sync() == 12


def test_a_lost_file_is_not_filled_with_zeros(tmp_path: Path) -> None:
    """Somebody deleted metrics.jsonl: what is written next must still be JSON lines."""
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 12) as log:
        log.write({"step": 3})
    assert path.read_text() == '{"step": 3}\n'
