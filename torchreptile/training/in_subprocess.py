"""A training in a process of its own, so that its memory can be told and nothing is left of it for the next."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from torchreptile.core.config import Config
from torchreptile.core.distributed.jobs import Job, Send, do_jobs
from torchreptile.core.environment import peak_mib
from torchreptile.training.callbacks import Observer, Silent
from torchreptile.training.progress_bars import LiveLine
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import resume, train
from torchreptile.training.trainer import Run


def train_or_go_on(config: Config, folder: RunFolder, observer: Observer) -> Run:
    """Train, or go on with the run that is there, on the device and with the data that ``config`` names."""
    there = folder.config_file.is_file()
    return resume(folder.path, observer, computed_as=config) if there else train(config, folder.path, observer)


def train_in_subprocess(config: Config, folder: RunFolder, quiet: bool = False) -> float | None:
    """Train, or go on with the run that is there, in a process of its own.

    Args:
        config: all settings.
        folder: where the run is kept.
        quiet: show nothing on standard error.

    Returns:
        Peak memory of that process in MiB, on a GPU that which torch took there, 0 where the run was over before; None
        if a signal stopped it.

    Raises:
        RunError: the training failed.
    """
    peaks: list[float] = []
    job = Job(str(folder.path), partial(_train, config.to_json(), str(folder.path), quiet))
    do_jobs([job], 1, torch.get_num_threads(), lambda *_: None, lambda _, peak: peaks.append(peak))
    return peaks[0] if peaks else None


def _train(config: str, folder: str, quiet: bool, send: Send) -> float | None:
    """Its answer is the peak memory."""
    observer = Silent() if quiet else LiveLine(Console(stderr=True))
    where = RunFolder(Path(folder))
    before = where.steps_done()
    run = train_or_go_on(Config.from_json(config), where, observer)
    if run.interrupted:
        return None
    if run.step == before:
        return 0.0
    device = next(iter(run.state.params.values())).device
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib()
