"""Meta-train from the beginning, or resume: at once, or step by step."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import use_algorithm
from torchreptile.core.config import Config
from torchreptile.core.config.presets import for_algorithm
from torchreptile.core.distributed.launcher import restarted_by_launcher
from torchreptile.core.distributed.process_group import Processes, joined
from torchreptile.models.blueprint import Network
from torchreptile.training.callbacks import Callback, Callbacks
from torchreptile.training.checkpoint import checkpoint_bytes, load_checkpoint, save_checkpoint
from torchreptile.training.progress_bars import ProgressBar
from torchreptile.training.resuming import announce_environment, resumed_checkpoint
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.same_settings import require_same_settings
from torchreptile.training.setup import Computed, build_setup, first_checkpoint
from torchreptile.training.trainer import Run as Run
from torchreptile.training.trainer import Trainer


def train(
    config: Config,
    out: Path | str,
    callbacks: Iterable[Callback] | None = None,
    network: Network | None = None,
    algorithm: type[Algorithm] | None = None,
) -> Run:
    """Meta-train from the beginning.

    Under torchrun every process calls this alike; they share the tasks and rank 0 writes. A process that
    torchrun restarted resumes the run.

    Args:
        config: all settings.
        out: a folder that does not exist yet, or is empty.
        callbacks: objects that follow the training, such as a logger; see :class:`torchreptile.Callback`. By default a
            :class:`torchreptile.ProgressBar`, which your own replace; ``[]`` shows nothing.
        network: makes the module to train, from image shape and way; by default the one published with the
            algorithm.
        algorithm: a class of your own with a ``row``, to train in place of the algorithm that ``config`` names.

    Raises:
        ConfigError, DataError, RunError: settings, data or folder cannot be used.

    Example:
        >>> import tempfile
        >>> import torchreptile as tr
        >>> config = tr.preset("glyphs-1shot-5way").replace(outer_steps=2, meta_batch=2, monitor_episodes=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tr.train(config, folder, callbacks=[]).step
        2
    """
    if algorithm is not None:
        name = use_algorithm(algorithm)
        config = config if config.method.algorithm == name else for_algorithm(name, config)
    with training_loop(config, out, [ProgressBar()] if callbacks is None else callbacks, network) as trainer:
        return trainer.run()


def resume(
    out: Path | str,
    callbacks: Iterable[Callback] | None = None,
    network: Network | None = None,
    computed_as: Config | None = None,
) -> Run:
    """Resume a run that was stopped: on the same kind of device exactly as if it had not been.

    On another, a CPU for a GPU or back, it draws other tasks from there on, and warns of it.

    Args:
        out: its folder; of several processes, rank 0 alone needs to have it.
        callbacks, network: as for :func:`train`.
        computed_as: whose device, execution and data_root to resume with; the run's own by default. Another device or
            execution rounds differently.

    Raises:
        RunError: no such run, or it was trained on other images, or with another network.
    """
    with resumed_loop(out, [ProgressBar()] if callbacks is None else callbacks, network, computed_as) as trainer:
        return trainer.run()


@contextmanager
def training_loop(
    config: Config, out: Path | str, callbacks: Iterable[Callback] = (), network: Network | None = None
) -> Iterator[Trainer]:
    """Prepare a training to iterate over: ``with training_loop(config, out) as trainer: for step in trainer: ...``.

    Arguments and exceptions are those of :func:`train`, and so is what is measured, saved and written; but no progress
    is shown by default.

    Example:
        >>> import tempfile
        >>> import torchreptile as tr
        >>> config = tr.preset("glyphs-1shot-5way").replace(outer_steps=2, meta_batch=2, monitor_episodes=2)
        >>> with tempfile.TemporaryDirectory() as folder, tr.training_loop(config, folder) as trainer:
        ...     for step in trainer:
        ...         print(step.step, step.step_size, step.loss.shape)
        1 1.0 torch.Size([])
        2 0.5 torch.Size([])
    """
    callback = Callbacks(callbacks)
    with joined() as processes:
        folder, first = RunFolder(Path(out)), processes.rank == 0
        require_same_settings(config, processes)
        if _restarted(folder, processes):
            with _resumed(folder, processes, callback, network) as trainer:
                yield trainer
            return
        if not first:
            setup = build_setup(config, folder, Callback(), processes, network)
            with processes.together():
                start = first_checkpoint(setup)
            yield Trainer(setup, start, folder)
            return
        folder.require_free()  # before the data are loaded, and before anything is written
        setup = build_setup(config, folder, callback, processes, network)
        with processes.together():
            start = first_checkpoint(setup)
        with folder.locked(make=True):
            folder.create(config, setup.environment())
            save_checkpoint(start, folder.last)
            yield Trainer(setup, start, folder, callback)


def _restarted(folder: RunFolder, processes: Processes) -> bool:
    """Return, in all processes alike, whether a launcher restarted one of them in a run that has begun.

    Of several machines each counts its own restarts, so that a process does not know by itself.
    """
    restarted = any(processes.from_all(b"1" * restarted_by_launcher()))
    return restarted and bool(processes.from_first(b"1" * folder.config_file.is_file()))


@contextmanager
def resumed_loop(
    out: Path | str,
    callbacks: Iterable[Callback] = (),
    network: Network | None = None,
    computed_as: Config | None = None,
) -> Iterator[Trainer]:
    """Prepare a run that was stopped to iterate over the rest of it; arguments are those of :func:`resume`."""
    callback = Callbacks(callbacks)
    with joined() as processes, _resumed(RunFolder(Path(out)), processes, callback, network, computed_as) as trainer:
        yield trainer


@contextmanager
def _resumed(
    folder: RunFolder,
    processes: Processes,
    callback: Callback,
    network: Network | None,
    computed_as: Config | None = None,
) -> Iterator[Trainer]:
    """Rank 0 reads the folder, and sends settings and state to the other processes."""
    if processes.rank > 0:
        settings, sent = json.loads(processes.from_first(b""))
        setup = build_setup(
            Config.from_json(settings), folder, Callback(), processes, network, sent and Computed(*sent)
        )
        yield Trainer(setup, load_checkpoint(io.BytesIO(processes.from_first(b"")), setup.device), folder)
        return
    config = folder.config() if computed_as is None else folder.config().computed_as(computed_as)
    with folder.locked():
        last = load_checkpoint(folder.last) if folder.has_checkpoint() else None
        before = Computed.of(last) if last else None
        processes.from_first(json.dumps([config.to_json(), before]).encode())
        setup = build_setup(config, folder, callback, processes, network, before)
        if last and last.step:
            announce_environment(setup, folder, callback)
        folder.record_session(config, setup.environment())
        start = resumed_checkpoint(setup, last, folder, callback) if last else first_checkpoint(setup)
        processes.from_first(checkpoint_bytes(start) if processes.size > 1 else b"")
        yield Trainer(setup, start, folder, callback)
