"""A training in a separate process, so that its memory can be measured and nothing of it is left for the next."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch

from torchreptile.algorithms.custom import CustomCode
from torchreptile.core.config import Config
from torchreptile.core.distributed.jobs import Job, Send, do_jobs
from torchreptile.core.environment import peak_mib
from torchreptile.training.callbacks import Callback
from torchreptile.training.progress_bars import ProgressBar
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import resume, train
from torchreptile.training.trainer import Run


def train_or_resume(config: Config, folder: RunFolder, callbacks: Iterable[Callback] = ()) -> Run:
    """Train, or resume the run in ``folder``, on the device and with the data that ``config`` names."""
    if folder.config_file.is_file():
        return resume(folder.path, callbacks, computed_as=config)
    return train(config, folder.path, callbacks)


def train_in_subprocess(config: Config, folder: RunFolder, quiet: bool = False) -> float | None:
    """Train, or resume the run in ``folder``, in a separate process.

    Args:
        config: all settings.
        folder: the run folder.
        quiet: show nothing on standard error.

    Returns:
        Peak memory of that process in MiB, on a GPU that which torch took there, 0 where the run was over before; None
        if a signal stopped it.

    Raises:
        ConfigError: a custom algorithm is defined where no other process can import it.
        RunError: the training failed.
    """
    peaks: list[float] = []
    work = partial(_train, config.to_json(), str(folder.path), quiet)
    job = Job(str(folder.path), work, CustomCode.of(config).load)
    do_jobs([job], 1, torch.get_num_threads(), lambda *_: None, lambda _, peak: peaks.append(peak))
    return peaks[0] if peaks else None


def _train(config: str, folder: str, quiet: bool, send: Send) -> float | None:
    """Train in this process; return its peak memory."""
    callbacks = [] if quiet else [ProgressBar(hints=True)]
    where = RunFolder(Path(folder))
    before = where.steps_done()
    run = train_or_resume(Config.from_json(config), where, callbacks)
    if run.interrupted:
        return None
    if run.step == before:
        return 0.0
    device = next(iter(run.state.params.values())).device
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib()
