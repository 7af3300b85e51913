"""Accuracy, transductive and not, or the error of functions, over many episodes: mean and 95% confidence interval."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchreptile.algorithms import Algorithm, MetaState, Predictions, build_algorithm
from torchreptile.checks import LARGEST_SEED
from torchreptile.config import FUNCTIONS, Config, TaskConfig
from torchreptile.data import load_splits
from torchreptile.data.duplicates import find_leaks, without_leaks
from torchreptile.data.folder import divided_by_ratio
from torchreptile.data.splits import Split, load_functions, resolve_scheme
from torchreptile.data.tables import Scale, Tables
from torchreptile.device import choose_device, keep_freed_memory, precision_of
from torchreptile.environment import environment
from torchreptile.errors import ConfigError, RunError
from torchreptile.files import write_text
from torchreptile.learned import Kept, Learned, load_learned
from torchreptile.models import Network
from torchreptile.processes import joined
from torchreptile.published import FIGURE_ONLY, Published, published_measure
from torchreptile.recording import Recording
from torchreptile.results import MODES as MODES
from torchreptile.results import Accuracy as Accuracy
from torchreptile.results import Fit as Fit
from torchreptile.results import Measured as Measured
from torchreptile.results import Result as Result
from torchreptile.results import SquaredError, measured_from
from torchreptile.sampling import Sampler, Store, sampler_of
from torchreptile.targets import scores

# Episodes drawn at a time. A constant, because the size of a draw decides which random numbers it gets:
# the first 1,000 of 10,000 episodes are the same as 1,000 episodes with the same seed.
EPISODES_PER_DRAW = 100
RECORD_FROM = 5  # draws from which a GPU repays recording one


def measure(
    algorithm: Algorithm,
    state: MetaState,
    sampler: Sampler,
    episodes: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Measure ``state`` on freshly drawn episodes.

    Args:
        algorithm: how to adapt and predict.
        state: left as it was.
        sampler: of evaluation episodes, with a query set.
        episodes: how many, at least 2.
        seed: the same seed gives the same episodes and mini-batches.
        on_progress: called with the number of episodes done.
    """
    generator = torch.Generator(sampler.store.device).manual_seed(seed)
    further = algorithm.further(sampler.store)

    def scored(tasks: int) -> Tensor:
        """(rows, tasks) how good the answers to each episode are: see :func:`_rows`; then the further measures."""
        with algorithm.execution.claim():
            drawn = sampler.sample(EPISODES_PER_DRAW, generator)[:tasks]
            predictions = algorithm.predict(state, drawn, generator)
        rows = torch.stack(_rows(predictions, drawn.query_y, sampler.scale))
        if further is not None:
            its = further.sampler.sample(EPISODES_PER_DRAW, generator)[:tasks]
            rows = torch.cat([rows, algorithm.measure_further(state, its, generator).double()])
        return rows

    whole_draws = episodes // EPISODES_PER_DRAW
    on_gpu, draws = generator.device.type == "cuda", algorithm.execution.draws
    record = on_gpu and not draws and whole_draws >= RECORD_FROM
    draw: Callable[[], Tensor] = partial(scored, EPISODES_PER_DRAW)
    if record:
        draw = Recording(draw, generator)
    parts: list[Tensor] = []
    for done in range(1, whole_draws + 1):
        parts.append(draw().to("cpu", copy=True))
        on_progress(done * EPISODES_PER_DRAW)
    if rest := episodes % EPISODES_PER_DRAW:
        parts.append(scored(rest).cpu())
        on_progress(episodes)
    rows = list(torch.cat(parts, dim=1))
    if algorithm.config.task.regression:
        return Fit(*(SquaredError.over(per_episode) for per_episode in rows))
    accuracies = [Accuracy.over(per_episode) for per_episode in rows]
    both = [accuracies.pop(0) if mode == "non_transductive" or algorithm.transduces else None for mode in MODES]
    assert both[1] is not None
    return Result(both[0], both[1], dict(zip(further.names, accuracies, strict=True)) if further is not None else {})


def _rows(predictions: Predictions, y: Tensor, scale: Scale | None) -> list[Tensor]:
    """(T,) scores each, float64: of labels those of MODES that apply; of values the error after and before adaptation,
    and the same in units of their own."""
    if predictions.before is None:
        labels = [predictions.transductive] if predictions.transductive is not None else []
        return [scores(label, y) for label in [*labels, predictions.non_transductive]]
    both = [predictions.non_transductive, predictions.before]
    rows = [scores(values, y) for values in both]
    if scale is None:
        return rows
    own_y = scale.own_y(y.double())
    return [*rows, *(scores(scale.own_y(values.double()), own_y) for values in both)]


@dataclass(frozen=True)
class Evaluation:
    """A measured result with everything that must stand beside it.

    Attributes:
        source: which weights.
        step: outer steps they were trained for.
        trained_on: the data set they were trained on; published numbers were trained on the one they are measured on.
        split: train, val or test.
        config: the settings of this evaluation (task and evaluation part) and of the training.
        result: the accuracies, or errors.
        seed: of episodes and mini-batches.
        seconds: wall time.
        environment: command, versions, hardware.
    """

    source: str
    step: int
    trained_on: str
    split: str
    config: Config
    result: Measured
    seed: int
    seconds: float
    environment: dict[str, Any]

    @property
    def file_name(self) -> str:
        """Where a run folder keeps it; only a repetition with the same settings, seed and weights replaces it."""
        task = self.config.task
        same = hashlib.sha256(f"{self.config.to_json()} {self.seed} {self.step}".encode()).hexdigest()[:8]
        kind = f"{task.shots}shot" + ("" if task.regression else f"-{task.way}way")
        return f"eval-{task.title}-{self.split}-{kind}-{same}.json"

    @property
    def on_training_classes(self) -> bool:
        """Whether it was measured on the classes or tasks that the weights were trained on."""
        task = self.config.task
        return self.split == "train" and self.trained_on == task.title and not task.drawn

    def is_of(self, config: Config) -> bool:
        """Whether those are its settings, of training and measurement, on however many episodes."""
        scheme = resolve_scheme(config.task.dataset, config.task.split_scheme)  # an evaluation names it
        return not self.config.departure(config.replace(split_scheme=scheme))

    def published(self, mode: str) -> Published | None:
        """What was published for this cell, for test classes; ``mode`` is one of MODES or a further measure."""
        if self.split != "test":
            return None
        task = self.config.task
        return published_measure(self.config.variant, task.dataset, task.way, task.shots, mode)

    def beside(self, measure: str) -> str:
        """The same in words; sine waves were published as curves."""
        waves = self.split == "test" and self.config.task.drawn
        return FIGURE_ONLY if waves else str(self.published(measure) or "-")

    def to_json(self) -> str:
        """Everything, as indented JSON; accuracies from 0 to 1, published ones in percent."""
        content = dataclasses.asdict(self)
        content["adaptation"] = self.config.adaptation
        content["published_percent"] = {
            name: cell.accuracy if (cell := self.published(name)) else None for name in self.result.rows()
        }
        return json.dumps(content, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """What :meth:`to_json` wrote.

        Raises:
            RunError: it is something else.
        """
        try:
            content = json.loads(text)
            content.pop("published_percent")
            content.pop("adaptation", None)
            content["config"] = Config.from_json(json.dumps(content["config"]))
            content["result"] = measured_from(content["result"])
            return cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise RunError(f"not an evaluation: {error}") from error


def evaluate(
    source: str | Path | Learned,
    split: Split = "test",
    *,
    dataset: str | None = None,
    data_root: str | None = None,
    data: str | None = None,
    table: str | None = None,
    shots: int | None = None,
    way: int | None = None,
    episodes: int | None = None,
    eval_steps: int | None = None,
    eval_batch: int | None = None,
    finetune_steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Kept = "last",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    network: Network | None = None,
    execution: str = "auto",
    precision: str = "fp32",
    task_chunk: int = 0,
) -> Evaluation:
    """Measure a run or shipped weights on classes of one split; a run folder keeps the result as eval-*.json.

    Under torchrun every process calls this alike; they share the episodes, and rank 0 writes.

    Args:
        source: run folder, name of shipped weights, or what :func:`load_learned` gave.
        split: which classes; the division into splits is the training's own, so test classes stay unseen.
        dataset: another data set than the one trained on, with its default division.
        data_root: the folder that holds the data set, where it is not the training's.
        data: own images, brought to the size of those that the weights were trained on. If that was on own images
            too, they are divided as those were: so name a folder that has moved, or other classes for testing.
        table: own functions, likewise; they are standardised as the training's were.
        shots, way, episodes, eval_steps, eval_batch, finetune_steps: instead of the training's settings; another way
            than the weights have outputs is refused.
        seed: of episodes and mini-batches.
        device: auto, cpu, cuda or cuda:N.
        checkpoint: of a run folder, the last one or the one with the best validation accuracy.
        on_progress: called with the episodes done and their total.
        network: what the weights belong to, if not the one published with the algorithm.
        execution, precision, task_chunk: how to compute; the numbers change by rounding alone.

    Raises:
        RunError, ConfigError, DataError: weights, settings or data cannot be used.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise ConfigError(f"seed is {seed}; it must be from 0 to {LARGEST_SEED}")
    where = choose_device(device)
    keep_freed_memory()
    learned = source.to(where) if isinstance(source, Learned) else load_learned(source, where, checkpoint)
    wanted = {"shots": shots, "way": way, "eval_episodes": episodes, "eval_steps": eval_steps, "eval_batch": eval_batch}
    wanted |= {"finetune_steps": finetune_steps}
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    changes |= {"execution": execution, "precision": precision, "task_chunk": task_chunk}
    if dataset is not None and dataset != learned.config.task.dataset:
        changes |= {"dataset": dataset, "split_scheme": "default", "split_seed": 0, "data_root": ""}
        changes |= {"data": "", "image_size": 0, "grey": False, "split_ratio": "", "table": "", "targets": ""}
    if data_root is not None:
        changes |= {"data_root": data_root}
    if data is not None:
        changes |= _own_images(learned.config.task, data)
    if table is not None:
        changes |= {"table": table}
    _check_kind(learned, dataset or ("folder" if data else "table" if table else ""))
    own, name = learned.config.evaluation.eval_steps, learned.config.method.algorithm
    if eval_steps not in (None, own) and not learned.config.method.adapts_by_steps:
        raise ConfigError(f"eval_steps is {eval_steps}, but {name} takes no inner steps in an episode; leave it out")
    config = learned.config.replace(**changes)
    config = config.replace(split_scheme=resolve_scheme(config.task.dataset, config.task.split_scheme))
    if data is None and table is None:
        _check_division(learned, config.task)
    store = split_store(config, split, learned.scale).to(where)
    evaluated = config.evaluation
    sampler = sampler_of(store, config.task.way, config.task.shots, evaluated.queries)
    total, work = evaluated.eval_episodes, evaluated.eval_episodes * evaluated.eval_steps
    with joined() as processes, precision_of(where, precision):
        algorithm = build_algorithm(config, store.image_shape, where, work, processes, network, targets=store.targets)
        learned.require_fit(algorithm)
        start = time.monotonic()
        result = measure(algorithm, learned.state, sampler, total, seed, lambda done: on_progress(done, total))
    seconds = time.monotonic() - start
    evaluation = Evaluation(
        learned.name,
        learned.step,
        learned.config.task.title,
        split,
        config,
        result,
        seed,
        round(seconds, 3),
        environment(where),
    )
    if learned.folder is not None and processes.rank == 0:
        file = learned.folder / evaluation.file_name
        try:
            write_text(file, evaluation.to_json() + "\n")
        except OSError as error:  # a result that took long to measure must not be lost with its file
            warnings.warn(
                f"{file} was not written ({error.strerror}); the result is returned all the same", stacklevel=2
            )
    return evaluation


def _own_images(trained: TaskConfig, data: str) -> dict[str, Any]:
    """The settings with which own images fit weights trained as ``trained`` says."""
    if trained.data:
        return {"data": data}
    channels, side, _ = trained.image_shape
    own = {"data": data, "image_size": side, "grey": channels == 1}
    return own | {"data_root": "", "split_scheme": "default", "split_seed": 0}


def _check_division(learned: Learned, task: TaskConfig) -> None:
    """Refuse own data that are divided otherwise than in the training: what was trained on would be tested on."""
    if not learned.data or not (task.table or (task.data and divided_by_ratio(task))):
        return
    if task.table:
        found, what, fix = load_functions(task).train.fingerprint, "functions", "--table"
    else:
        splits = load_splits(task)
        train = without_leaks(splits.train, find_leaks(splits)) if task.exclude_duplicates else splits.train
        found, what, fix = train.fingerprint, "images", "--data with folders train, val and test of classes"
    if found != learned.data:
        members, own = task.members, task.data or task.table
        raise RunError(
            f"{learned.name} was trained on other {what} than {own} holds now, so {members} it was trained on may "
            f"count as test {members}; bring the {what} back, or give {fix}"
        )


def _check_kind(learned: Learned, dataset: str) -> None:
    """Refuse functions for weights that label images, and images for weights that fit functions."""
    trained = learned.config.task
    if dataset and (dataset in FUNCTIONS) != trained.regression:
        kinds = ("functions", "images") if trained.regression else ("images", "functions")
        raise ConfigError(f"{learned.name} was trained on {kinds[0]} ({trained.title}), and {dataset} has {kinds[1]}")


def split_store(config: Config, split: Split, scale: Scale | None = None) -> Store:
    """The images, or functions, of one split.

    Args:
        config: says which.
        split: train, val or test.
        scale: what tables are standardised by, as the training's were; by default by their own training tasks.

    Raises:
        DataError: there is no such split, or its data are damaged.
    """
    if not config.task.regression:
        return load_splits(config.task).get(split)
    store = load_functions(config.task).get(split)
    return store.scaled_by(scale) if isinstance(store, Tables) and scale is not None else store
