"""A training in a process of its own, so that its memory can be told and nothing is left of it for the next."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from rich.console import Console

from torchreptile.checkpoint import RunFolder
from torchreptile.config import Config
from torchreptile.environment import peak_mib
from torchreptile.errors import RunError, TorchReptileError
from torchreptile.observers import Silent
from torchreptile.progress import LiveLine
from torchreptile.trainer import stop_on_signals
from torchreptile.training import resume, train
from torchreptile.workers import LAUNCHER

POLL = 0.2  # seconds between two looks at the process


def train_apart(config: Config, folder: RunFolder, quiet: bool = False) -> float | None:
    """Train, or go on with the run that is there, in a process of its own.

    Args:
        config: all settings.
        folder: where the run is kept.
        quiet: show nothing on standard error.

    Returns:
        Peak memory of that process in MiB, on a GPU that which torch took there; None if a signal stopped it.

    Raises:
        RunError: the training failed.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, config.to_json(), str(folder.path), torch.get_num_threads(), quiet)
    process = context.Process(target=_train, args=arguments)
    with stop_on_signals() as asked:
        process.start()
        theirs.close()
        told = False
        while process.is_alive():
            process.join(POLL)
            if asked() and not told:
                process.terminate()  # it saves first
                told = True
    said: object = None
    if ours.poll():
        try:
            said = ours.recv()
        except EOFError:  # it ended without a word
            said = None
    if isinstance(said, float):
        return said
    if isinstance(said, str):
        raise RunError(f"{folder.path}: {said}")
    if told:
        return None
    raise RunError(f"{folder.path}: the training ended with exit code {process.exitcode}; the same command goes on")


def _train(answer: Connection, config: str, folder: str, threads: int, quiet: bool) -> None:
    """What the process does; it answers with its peak memory, a reason why it failed, or nothing if stopped."""
    if os.name == "posix":
        os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on once
    os.environ[LAUNCHER] = str(os.getppid())  # it saves and ends should the parent be gone
    torch.set_num_threads(threads)
    observer = Silent() if quiet else LiveLine(Console(stderr=True))
    try:
        there = RunFolder(Path(folder)).config_file.is_file()
        run = resume(folder, observer) if there else train(Config.from_json(config), folder, observer)
    except TorchReptileError as error:
        answer.send(str(error))
        return
    if run.interrupted:
        return
    device = next(iter(run.state.params.values())).device
    answer.send(torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else peak_mib())
