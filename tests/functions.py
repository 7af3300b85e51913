"""Small functions made on the spot, for several test files."""

from __future__ import annotations

import csv
from pathlib import Path

import torch

from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.data.functions.tables import Scale, Tables


def small_sine(algorithm: str = "reptile", **changes: object) -> Config:
    """Settings for runs of a second; the rest is the algorithm's own."""
    small = {
        "mlp_units": 8, "outer_steps": 6, "meta_batch": 3, "inner_steps": 3, "eval_steps": 4, "eval_episodes": 20,
        "queries": 7, "train_shots": 10, "shots": 5, "monitor_every": 2, "monitor_episodes": 4, "device": "cpu",
    }  # fmt: skip
    config = preset("sine", algorithm)
    if algorithm == "meta-lstm":
        small["meta_lstm_units"] = 4
    if config.row.learns_from_queries:
        small["train_queries"] = 6
    if not config.outer.outer_step_size_final and config.outer.outer_optimizer == "sgd":
        small["outer_step_size"] = 0.5
    return config.replace(**{**small, **changes})


def table_store(tasks: int = 4) -> Tables:
    """Lines through two inputs, of 12, 8, 8, 20, ... rows each, in units far from 0 and 1."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([12, 8, 8, 20] + [15] * max(0, tasks - 4))[:tasks]
    x = 100 + 10 * torch.rand(int(sizes.sum()), 2, generator=generator, dtype=torch.float64)
    slopes = torch.randn(tasks, 2, generator=generator, dtype=torch.float64).repeat_interleave(sizes, 0)
    y = 1000 + 50 * (x * slopes).sum(1, keepdim=True)
    return Tables(x, y, sizes, tuple(f"t{i}" for i in range(tasks)), "made", Scale.over(("a", "b"), ("y",), x, y))


def write_folder(folder: Path, tasks: int = 20, rows: int = 30) -> Path:
    """A csv file per task: y = s * (1 + dose / 10) around 500, for an s of the task's own."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for task in range(tasks):
        slope = float(torch.randn((), generator=generator))
        with (folder / f"plant{task:02d}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["dose", "y"])
            doses = (20 * torch.rand(rows, generator=generator)).tolist()
            writer.writerows([dose, 500 + 40 * slope * (1 + dose / 10)] for dose in doses)
    return folder
