"""Meta-training: sample, learn, move the initialisation, measure, save."""

from __future__ import annotations

import io
import json
from pathlib import Path

from torchreptile.core.config import Config
from torchreptile.core.distributed.launcher import restarted_by_launcher
from torchreptile.core.distributed.process_group import Processes, joined
from torchreptile.models.blueprint import Network
from torchreptile.training.callbacks import Observer
from torchreptile.training.checkpoint import checkpoint_bytes, load_checkpoint, save_checkpoint
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.trainer import Computed, Trainer
from torchreptile.training.trainer import Run as Run


def train(
    config: Config,
    out: Path | str,
    observer: Observer | None = None,
    tensorboard: bool = False,
    network: Network | None = None,
) -> Run:
    """Meta-train from the beginning.

    Under torchrun every process calls this alike; they share the tasks and rank 0 writes. A process that
    torchrun started again goes on with the run.

    Args:
        config: all settings.
        out: a folder that does not exist yet, or is empty.
        observer: is told how it goes.
        tensorboard: also log for TensorBoard, into the run folder.
        network: makes the module to train, from image shape and way; by default the one published with the
            algorithm.

    Raises:
        ConfigError, DataError, RunError: settings, data or folder cannot be used.
    """
    with joined() as processes:
        folder, first = RunFolder(Path(out)), processes.rank == 0
        if restarted_by_launcher() and processes.agree(first and folder.config_file.is_file(), 0.0)[0]:
            return _resume(folder, processes, observer, tensorboard, network)
        if first:
            folder.require_free()  # before the data are loaded, and before anything is written
        trainer = Trainer(config, folder, observer, tensorboard, processes, network)
        if not first:
            return trainer.run(trainer.beginning())
        with folder.locked(make=True):
            folder.create(config, trainer.environment())
            start = trainer.beginning()
            save_checkpoint(start, folder.last)
            return trainer.run(start)


def resume(
    out: Path | str,
    observer: Observer | None = None,
    tensorboard: bool = False,
    network: Network | None = None,
    computed_as: Config | None = None,
) -> Run:
    """Go on with a run that was stopped: on the same kind of device exactly as if it had not been.

    On another, a CPU for a GPU or back, it draws other tasks from there on, and warns of it.

    Args:
        out: its folder; of several processes, rank 0 alone needs to have it.
        observer, tensorboard, network: as for :func:`train`.
        computed_as: whose device, execution and data_root to go on with; the run's own by default. Another device or
            execution rounds otherwise.

    Raises:
        RunError: no such run, or it was trained on other images, or with another network.
    """
    with joined() as processes:
        return _resume(RunFolder(Path(out)), processes, observer, tensorboard, network, computed_as)


def _resume(
    folder: RunFolder,
    processes: Processes,
    observer: Observer | None,
    tensorboard: bool,
    network: Network | None,
    computed_as: Config | None = None,
) -> Run:
    if processes.rank > 0:
        settings, before = json.loads(processes.from_first(b""))
        config = Config.from_json(settings)
        trainer = Trainer(config, folder, observer, tensorboard, processes, network, before and Computed(*before))
        return trainer.run(load_checkpoint(io.BytesIO(processes.from_first(b"")), trainer.device))
    config = folder.config() if computed_as is None else folder.config().computed_as(computed_as)
    with folder.locked():
        last = load_checkpoint(folder.last) if folder.begun() else None
        before = Computed(last.device, last.execution) if last else None
        processes.from_first(json.dumps([config.to_json(), before]).encode())
        trainer = Trainer(config, folder, observer, tensorboard, processes, network, before)
        folder.go_on(config, trainer.environment())
        start = trainer.going_on(last) if last else trainer.beginning()
        processes.from_first(checkpoint_bytes(start) if processes.size > 1 else b"")
        return trainer.run(start)
