"""Carries an experiment out: trains what is missing, measures it, and keeps everything from one call to the next."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from torchreptile.apart import Job, Tell, do_apart, train_or_go_on
from torchreptile.checkpoint import RunFolder, load_checkpoint
from torchreptile.checks import at_least
from torchreptile.config import Config
from torchreptile.data.splits import Split, load_splits
from torchreptile.device import choose_device
from torchreptile.environment import environment
from torchreptile.errors import ConfigError, DataError, RunError
from torchreptile.evaluation import evaluate, split_store
from torchreptile.files import write_text
from torchreptile.fitting import fit_functions
from torchreptile.learned import load_learned
from torchreptile.observers import Silent
from torchreptile.progress import EpisodeBar, LiveLine, ManyBar
from torchreptile.reproduce.experiment import Arm, Experiment
from torchreptile.reproduce.reproduced import Reproduced, Taken, cells, read_reproduced
from torchreptile.results import ERRORS, Accuracy, SquaredError

RESULT = "result.json"
TELL_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class _Piece:
    """A training that is wanted, and what of it."""

    arm: Arm
    config: Config
    folder: RunFolder

    @property
    def work(self) -> float:
        """About how much it is to do: images seen."""
        outer, inner, task = self.config.outer, self.config.inner, self.config.task
        images = inner.inner_batch or task.way * task.images_per_class
        steps = inner.inner_steps if self.config.method.takes_inner_steps else 1
        return float(outer.outer_steps * outer.meta_batch * steps * images)


def carry_out(
    experiment: Experiment,
    out: Path | str,
    *,
    share: float = 1.0,
    seeds: int = 0,
    split: Split = "test",
    episodes: int = 0,
    at_once: int = 0,
    quiet: bool = False,
    **changes: Any,
) -> Reproduced | None:
    """Train and measure what is missing.

    Stopped or killed, the same call goes on where it was: trainings by their checkpoints, whole ones by result.json.
    Called again with another ``split`` or other ``episodes`` it measures the same trainings anew.

    Args:
        experiment: which.
        out: folder for the run folders and result.json.
        share: of the published outer steps; every training is annealed to its end all the same.
        seeds: trainings of each arm, with the seeds 0, 1, ...; 0 for as many as the experiment says.
        split: which classes to measure on.
        episodes: of each measurement; 0 for as many as the experiment says.
        at_once: trainings side by side, each with its part of the threads; 0 for one per thread on a CPU, and one on a
            GPU.
        quiet: show nothing on standard error.
        changes: settings that are no part of what was published, such as ``device``, for all trainings.

    Returns:
        All of it; None if a signal ended it before.

    Raises:
        ConfigError: the arguments cannot work.
        DataError: a data set is not there.
        RunError: ``out`` holds something else, or a training failed.
    """
    at_least(0, seeds=seeds, at_once=at_once)
    if episodes < 0 or episodes == 1:
        raise ConfigError(f"episodes is {episodes}; it must be at least 2, or 0 for as many as published")
    out, asked = Path(out), experiment.shortened(share).with_settings(**changes)
    episodes = episodes or experiment.episodes
    pieces = [
        _Piece(arm, arm.config.replace(seed=seed), RunFolder(out / f"{arm.name}-seed{seed}"))
        for arm in asked.arms
        for seed in range(seeds or experiment.seeds)
    ]
    _check_data(asked, split)
    kept, commands = _kept(out, experiment.name, share)
    missing = [piece for piece in pieces if not _measured(piece, kept, split, episodes)]
    for piece in pieces:
        if piece.folder.config_file.is_file() and piece.folder.config() != piece.config:
            raise RunError(f"{piece.folder.path} was trained with other settings; name another folder with --out")
    device, threads = choose_device(asked.arms[0].config.run.device), torch.get_num_threads()
    at_once = min(at_once or (threads if device.type == "cpu" else 1), max(1, len(missing)))
    alone = at_once == 1 and not quiet

    command = environment()["command"]

    def done(number: int, answer: str) -> None:
        taken = Taken.of_content(json.loads(answer))
        kept[taken.arm, taken.seed] = _with_cells_of(taken, kept.get((taken.arm, taken.seed)))
        save()
        bar.finished(number, f"{taken.label}, seed {taken.seed}: {_first_cell(taken)}")

    def save() -> Reproduced:
        order = {arm.name: place for place, arm in enumerate(asked.arms)}
        taken = sorted(kept.values(), key=lambda one: (order.get(one.arm, len(order)), one.seed))
        reproduced = Reproduced(experiment.name, share, taken, list(dict.fromkeys([*commands, command])))
        write_text(out / RESULT, reproduced.to_json())
        return reproduced

    def heard(number: int, said: float | str) -> None:
        if isinstance(said, str):
            bar.warned(said)
        else:
            bar.told(number, said)

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out}: cannot be used as a folder ({error.strerror}); name another with --out") from error
    jobs = [Job(str(piece.folder.path), partial(_carry_out, piece, split, episodes, alone)) for piece in missing]
    with ManyBar(Console(stderr=True, quiet=quiet), [piece.work for piece in missing], shown=not alone) as bar:
        whole = do_apart(jobs, at_once, max(1, threads // at_once), heard, done)
    return save() if whole else None


def _check_data(experiment: Experiment, split: Split) -> None:
    """Find out now, not after hours of training, that there is nothing to measure on.

    Raises:
        DataError: a split is not there, or its data are damaged.
    """
    for arm in {arm.config.task.dataset: arm for arm in experiment.arms}.values():
        if arm.config.task.regression:
            continue
        splits = load_splits(arm.config.task)
        try:
            splits.get(split)
        except DataError as error:
            other = "; --split val measures on validation classes" if split == "test" and splits.has("val") else ""
            raise DataError(f"{error}{other}") from error


def _kept(out: Path, name: str, share: float) -> tuple[dict[tuple[str, int], Taken], list[str]]:
    """What earlier calls came to, by arm and seed, and their commands.

    Raises:
        RunError: the file is damaged, or of another experiment.
    """
    file = out / RESULT
    if not file.is_file():
        return {}, []
    before = read_reproduced(file)
    if (before.name, before.share) != (name, share):
        raise RunError(f"{out} holds {before.name} with --budget {before.share:g}; name another folder with --out")
    return {(one.arm, one.seed): one for one in before.taken}, before.commands


def _measured(piece: _Piece, kept: Mapping[tuple[str, int], Taken], split: Split, episodes: int) -> bool:
    """Whether everything that is asked of it is known."""
    taken = kept.get((piece.arm.name, piece.config.run.seed))
    if taken is None or taken.config != piece.config:
        return False
    known = {(cell.split, cell.episodes, cell.shots, cell.eval_steps, cell.eval_batch) for cell in taken.cells}
    asked = {(split, episodes, its.shots, its.eval_steps, its.eval_batch) for its in piece.arm.measurements}
    return asked <= known


def _with_cells_of(taken: Taken, before: Taken | None) -> Taken:
    """With what was measured of it before, on other classes; the newest of each counts."""
    if before is None:
        return taken
    now = {(cell.split, cell.shots) for cell in taken.cells}
    others = [cell for cell in before.cells if (cell.split, cell.shots) not in now]
    return replace(taken, cells=[*taken.cells, *others])


def _first_cell(taken: Taken) -> str:
    """For the line that says it is over."""
    cell = taken.cells[0]
    if cell.measure in ERRORS:
        return f"mse {SquaredError(cell.mean, cell.ci95, cell.episodes)}"
    mode = f" {cell.measure.replace('_', '-')}"
    return f"{cell.shots}-shot {Accuracy(cell.mean, cell.ci95, cell.episodes)}{mode}"


class _Telling(Silent):
    """Tells the parent how a training goes, now and then."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._told = tell, 0.0

    def warned(self, message: str) -> None:
        """Pass it on."""
        self._tell(message)

    def stepped(self, step: int, done: float, seconds: float) -> None:
        """Say how much is done."""
        if (now := time.monotonic()) - self._told >= TELL_EVERY:
            self._told = now
            self._tell(done)


def _carry_out(piece: _Piece, split: Split, episodes: int, shown: bool, tell: Tell) -> str | None:
    """What a job's process does: train, measure, and answer with a :class:`Taken` as JSON; None if stopped."""
    console, folder, config = Console(stderr=True, quiet=not shown), piece.folder, piece.config
    over = folder.last.is_file() and load_checkpoint(folder.last).step >= config.outer.outer_steps
    if not over and train_or_go_on(config, folder, LiveLine(console) if shown else _Telling(tell)).interrupted:
        return None
    measured = []
    for its in piece.arm.measurements:
        with EpisodeBar(console) as bar:
            evaluation = evaluate(
                folder.path,
                split,
                **dataclasses.asdict(its),
                episodes=episodes,
                seed=config.run.seed,
                device=config.run.device,
                on_progress=bar.update,
            )
        measured += cells(evaluation, "last")
    checkpoint = load_checkpoint(folder.last)
    by_step = []
    if config.task.regression:
        fitted = fit_functions(load_learned(folder.path), split_store(config, split, checkpoint.scale), episodes)
        by_step = [(error.mean, error.ci95) for error in fitted.by_step]
    taken = Taken(
        piece.arm.name, piece.arm.label, config, checkpoint.step, checkpoint.seconds,
        json.loads(folder.env_file.read_text(encoding="utf-8")), measured, folder.metrics(), by_step,
    )  # fmt: skip
    return json.dumps(taken.content())
