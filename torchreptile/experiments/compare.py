"""Comparison of algorithms on one task, trained and evaluated under the same conditions (``reptile compare``)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.custom import CustomCode
from torchreptile.core.config import Config
from torchreptile.core.config.algorithm_table import algorithm_row
from torchreptile.core.config.presets import preset
from torchreptile.core.device import choose_device, precision_of
from torchreptile.core.environment import environment
from torchreptile.core.errors import ConfigError
from torchreptile.core.files import write_text
from torchreptile.data.loading import require_split
from torchreptile.data.samplers import sampler_of
from torchreptile.data.splits import Split
from torchreptile.experiments.comparison import FILE, Comparison, Trained, earlier_trainings
from torchreptile.models.losses import answers
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.evaluation.evaluate import evaluate, split_store
from torchreptile.training.in_subprocess import train_in_subprocess
from torchreptile.training.progress_bars import CountBar, StandardError
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.weights import CheckpointName, MetaWeights, load_weights

ADAPTATIONS = 20  # timed one after another; the median is reported


def compare(
    name: str,
    algorithms: Sequence[str],
    seeds: int,
    out: Path | str,
    *,
    split: Split = "test",
    episodes: int = 1000,
    quiet: bool = False,
    **changes: Any,
) -> Comparison | None:
    """Train every algorithm with every seed, each in its own process, and evaluate all of them alike.

    With validation classes, the checkpoint that did best on them is evaluated. Finished trainings in ``out`` are
    reused, so an interrupted call is resumed by repeating it. Under a budget (``max_minutes`` or ``outer_steps``)
    every algorithm's outer step size is annealed to 0, whatever its publication does: a training cut short would
    otherwise be evaluated while its weights still move by large steps. All episodes have the preset's number of
    queries, because transductive accuracy depends on it.

    Args:
        name: preset that defines the task and, for each algorithm, the settings published for that task.
        algorithms: names of the algorithms.
        seeds: trainings per algorithm, with seeds 0, 1, ...
        out: folder for the run folders and ``comparison.json``.
        split: classes to evaluate on.
        episodes: episodes per evaluation.
        quiet: show no progress on standard error.
        changes: settings applied to every training, such as ``max_minutes=20, split_scheme="vinyals"``; an algorithm
            that meta-learns nothing takes a single outer step regardless.

    Returns:
        The comparison, or None if a signal interrupted it.

    Raises:
        ConfigError: the settings are invalid.
        DataError: the data set or the split is missing.
        RunError: ``out`` holds runs with other settings, or a training failed.

    Example (twelve minutes of training)::

        comparison = compare("sine", ["reptile", "maml"], seeds=3, out="runs/compare-sine", max_minutes=2)
        for row in comparison.rows():
            print(row.algorithm, row.accuracy["mse"])
    """
    out, planned = Path(out), plan(name, algorithms, seeds, episodes, changes)
    known, trained = earlier_trainings(out, name), {}
    folders = [RunFolder(out / f"{config.method.algorithm}-{config.run.seed}") for config in planned]
    for config, folder in zip(planned, folders, strict=True):
        folder.require_same(config)
        CustomCode.of(config)  # refused now, not when its turn comes
    require_split(planned[0].task, split)
    for config, folder in zip(planned, folders, strict=True):
        steps = folder.steps_done()
        same_run = [done for done in known if done.steps == steps and done.evaluation.is_of(config)]
        # Other measurements of this algorithm and seed belong to a run that was replaced.
        key = (config.method.algorithm, config.run.seed)
        known = [done for done in known if done in same_run or (done.algorithm, done.seed) != key]
        found = next((done for done in same_run if done.measured_on(split, episodes)), None)
        if found is None:
            peak = same_run[0].peak_mib if same_run else train_in_subprocess(config, folder, quiet)
            if peak is None:
                return None
            found = _evaluate_run(folder, split, episodes, peak, quiet)
            known.append(found)
        trained[folder.path] = found
        comparison = Comparison(name, list(trained.values()), environment())
        others = [done for done in known if done not in comparison.trained]
        write_text(out / FILE, comparison.to_json(others) + "\n")
    return comparison


def plan(name: str, algorithms: Sequence[str], seeds: int, episodes: int, changes: Mapping[str, Any]) -> list[Config]:
    """Return the settings of every training of a comparison, in order.

    Args:
        name, algorithms, seeds, episodes, changes: see :func:`compare`.

    Raises:
        ConfigError: the settings are invalid.

    Example:
        >>> [config.method.algorithm for config in plan("sine", ["reptile", "maml"], 1, 100, {})]
        ['reptile', 'maml']
    """
    task = preset(name)
    if seeds < 1:
        raise ConfigError(f"seeds is {seeds}; it must be at least 1")
    if not algorithms or len(set(algorithms)) < len(algorithms):
        raise ConfigError(f"algorithms is {' '.join(algorithms) or 'empty'}; name each once")
    shared = {"eval_episodes": episodes, "queries": task.evaluation.queries, **changes}
    if changes.get("max_minutes") or changes.get("outer_steps"):
        shared["outer_step_size_final"] = 0.0
    planned = []
    for algorithm in algorithms:
        config = preset(name, algorithm)
        steps = config.outer.outer_steps  # 1 for an algorithm that meta-learns nothing
        config = config.replace(**shared)
        if not algorithm_row(algorithm).meta_learns:
            config = config.replace(outer_steps=steps)
        planned += [config.replace(seed=seed) for seed in range(seeds)]
    return planned


def _evaluate_run(folder: RunFolder, split: Split, episodes: int, peak: float, quiet: bool) -> Trained:
    """Evaluate one finished training."""
    config = folder.config()
    checkpoint: CheckpointName = "best" if folder.best.is_file() else "last"
    weights = load_weights(folder.path, choose_device(config.run.device), checkpoint)
    with CountBar(StandardError(quiet=quiet), "evaluating", "episodes") as bar:
        evaluation = evaluate(
            folder.path,
            split,
            episodes=episodes,
            checkpoint=checkpoint,
            seed=config.run.seed,
            device=config.run.device,
            precision=config.run.precision,
            on_progress=bar.update,
        )
    last = load_checkpoint(folder.last)
    return Trained(
        evaluation,
        steps=last.step,
        seconds=last.seconds,
        parameters=_parameter_count(weights),
        adapt_ms=_adapt_ms(weights, split),
        peak_mib=peak,
    )


def _parameter_count(weights: MetaWeights) -> int:
    """Count the meta-learned parameters; 0 for an algorithm that meta-learns nothing."""
    meta_learns = algorithm_row(weights.config.method.algorithm).meta_learns
    return sum(p.numel() for p in weights.state.params.values()) if meta_learns else 0


def _adapt_ms(weights: MetaWeights, split: Split) -> float:
    """Return the median time in ms from a support set to the labels of its queries, one task at a time."""
    config, device = weights.config, choose_device(weights.config.run.device)
    store = split_store(config, split, weights.scale).to(device)
    sampler = sampler_of(store, config.task.way, config.task.shots, config.evaluation.queries)
    generator = torch.Generator(device).manual_seed(0)
    taken = []
    with precision_of(device, config.run.precision), torch.no_grad():
        work = config.evaluation.eval_episodes * config.evaluation.eval_steps  # selects the evaluation's execution
        algorithm = build_algorithm(config, store.image_shape, device, work, targets=store.targets)
        for _ in range(1 + ADAPTATIONS):
            episode = sampler.sample(1, generator)
            drawn = algorithm.draw(1, episode.support_y.shape[1], generator)
            start = time.perf_counter()
            with algorithm.execution.claim():
                adapted = algorithm.adapt(weights.state, episode.support_x, episode.support_y, drawn)
                answers(adapted.inductive(episode.query_x), episode.query_y).cpu()  # synchronises with the GPU
            taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken[1:])  # the first is a warm-up
