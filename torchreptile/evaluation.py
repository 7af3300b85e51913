"""Accuracy over many episodes: transductive and not, mean and 95% confidence interval."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchreptile.algorithms import Algorithm, MetaState, build_algorithm
from torchreptile.config import LARGEST_SEED, Config, TaskConfig
from torchreptile.data import ImageStore, load_splits
from torchreptile.data.duplicates import find_leaks, without_leaks
from torchreptile.data.folder import divided_by_ratio
from torchreptile.data.splits import Split, resolve_scheme
from torchreptile.device import choose_device, keep_freed_memory, precision_of
from torchreptile.environment import environment
from torchreptile.episodes import EpisodeSampler
from torchreptile.errors import ConfigError, RunError
from torchreptile.files import write_text
from torchreptile.learned import Kept, Learned, load_learned
from torchreptile.models import Network
from torchreptile.processes import joined
from torchreptile.published import PUBLISHED_FURTHER, Published, published
from torchreptile.recording import Recording

MODES = ("transductive", "non_transductive")

# Episodes drawn at a time. A constant, because the size of a draw decides which random numbers it gets:
# the first 1,000 of 10,000 episodes are the same as 1,000 episodes with the same seed.
EPISODES_PER_DRAW = 100
RECORD_FROM = 5  # draws from which a GPU repays recording one


@dataclass(frozen=True)
class Accuracy:
    """An accuracy over episodes.

    Attributes:
        mean: from 0 to 1.
        ci95: half the width of the 95% confidence interval of the mean, over episodes.
        episodes: how many.
    """

    mean: float
    ci95: float
    episodes: int

    @classmethod
    def over(cls, per_episode: Tensor) -> Accuracy:
        """From (episodes,) accuracies, each from 0 to 1; normal approximation, sample standard deviation."""
        n = len(per_episode)
        return cls(float(per_episode.mean()), 1.96 * float(per_episode.std()) / math.sqrt(n), n)

    def __str__(self) -> str:
        """For people: ``97.68% +- 0.09``."""
        return f"{100 * self.mean:.2f}% ± {100 * self.ci95:.2f}"


@dataclass(frozen=True)
class Result:
    """Both accuracies over the same episodes, adapted once.

    Attributes:
        transductive: None for algorithms whose queries in one batch are labelled as each alone.
        non_transductive: each query alone.
        further: what the algorithm measures beside these, by name, on episodes of its own.
    """

    transductive: Accuracy | None
    non_transductive: Accuracy
    further: dict[str, Accuracy] = field(default_factory=dict)

    def selected(self, transductive: bool) -> Accuracy:
        """The one or the other; where there is but one, that one."""
        return self.transductive if transductive and self.transductive is not None else self.non_transductive

    def by_mode(self, mode: str) -> Accuracy | None:
        """One of MODES; None where it does not apply."""
        return self.transductive if mode == "transductive" else self.non_transductive

    def measures(self) -> dict[str, Accuracy]:
        """All there are, by name: those of MODES that apply, then the further ones."""
        return {mode: accuracy for mode in MODES if (accuracy := self.by_mode(mode))} | self.further


def measure(
    algorithm: Algorithm,
    state: MetaState,
    sampler: EpisodeSampler,
    episodes: int,
    seed: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Result:
    """Measure ``state`` on freshly drawn episodes.

    Args:
        algorithm: how to adapt and predict.
        state: left as it was.
        sampler: of evaluation episodes, with a query set.
        episodes: how many, at least 2.
        seed: the same seed gives the same episodes and mini-batches.
        on_progress: called with the number of episodes done.
    """
    generator = torch.Generator(sampler.store.images.device).manual_seed(seed)
    further = algorithm.further(sampler.store)

    def hits(tasks: int) -> Tensor:
        """(rows, tasks) share of right answers: of MODES that apply, in that order, and of further measures."""
        with algorithm.execution.claim():
            drawn = sampler.sample(EPISODES_PER_DRAW, generator)[:tasks]
            predictions = algorithm.predict(state, drawn, generator)
        labels = [predictions.transductive] if predictions.transductive is not None else []
        rows = torch.stack([label == drawn.query_y for label in [*labels, predictions.non_transductive]])
        rows = rows.double().mean(2)
        if further is not None:
            its = further.sampler.sample(EPISODES_PER_DRAW, generator)[:tasks]
            rows = torch.cat([rows, algorithm.measure_further(state, its, generator).double()])
        return rows

    whole_draws = episodes // EPISODES_PER_DRAW
    on_gpu, draws = generator.device.type == "cuda", algorithm.execution.draws
    record = on_gpu and not draws and whole_draws >= RECORD_FROM
    draw: Callable[[], Tensor] = partial(hits, EPISODES_PER_DRAW)
    if record:
        draw = Recording(draw, generator)
    accuracies: list[Tensor] = []
    for done in range(1, whole_draws + 1):
        accuracies.append(draw().to("cpu", copy=True))
        on_progress(done * EPISODES_PER_DRAW)
    if rest := episodes % EPISODES_PER_DRAW:
        accuracies.append(hits(rest).cpu())
        on_progress(episodes)
    rows = [Accuracy.over(per_episode) for per_episode in torch.cat(accuracies, dim=1)]
    both = [rows.pop(0) if mode == "non_transductive" or algorithm.transduces else None for mode in MODES]
    assert both[1] is not None
    return Result(both[0], both[1], dict(zip(further.names, rows, strict=True)) if further is not None else {})


@dataclass(frozen=True)
class Evaluation:
    """A measured result with everything that must stand beside it.

    Attributes:
        source: which weights.
        step: outer steps they were trained for.
        trained_on: the data set they were trained on; published numbers were trained on the one they are measured on.
        split: train, val or test.
        config: the settings of this evaluation (task and evaluation part) and of the training.
        result: the accuracies.
        seed: of episodes and mini-batches.
        seconds: wall time.
        environment: command, versions, hardware.
    """

    source: str
    step: int
    trained_on: str
    split: str
    config: Config
    result: Result
    seed: int
    seconds: float
    environment: dict[str, Any]

    @property
    def file_name(self) -> str:
        """Where a run folder keeps it; only a repetition with the same settings, seed and weights replaces it."""
        task = self.config.task
        same = hashlib.sha256(f"{self.config.to_json()} {self.seed} {self.step}".encode()).hexdigest()[:8]
        return f"eval-{task.title}-{self.split}-{task.shots}shot-{task.way}way-{same}.json"

    @property
    def on_training_classes(self) -> bool:
        """Whether the accuracy is on the classes that the weights were trained on."""
        return self.split == "train" and self.trained_on == self.config.task.title

    def published(self, mode: str) -> Published | None:
        """What was published for this cell, for test classes; ``mode`` is one of MODES or a further measure."""
        if self.split != "test":
            return None
        task, variant = self.config.task, self.config.variant
        if mode in MODES:
            return published(variant, task.dataset, task.way, task.shots, transductive=mode == "transductive")
        return PUBLISHED_FURTHER.get((variant, task.dataset, task.way, mode))

    def to_json(self) -> str:
        """Everything, as indented JSON; accuracies from 0 to 1, published ones in percent."""
        content = dataclasses.asdict(self)
        content["adaptation"] = self.config.adaptation
        content["published_percent"] = {
            mode: cell.accuracy if (cell := self.published(mode)) else None for mode in (*MODES, *self.result.further)
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
            content["result"] = _result_from(content["result"])
            return cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise RunError(f"not an evaluation: {error}") from error


def _result_from(content: dict[str, Any]) -> Result:
    """From JSON; results of earlier versions have no further measures."""
    transductive, further = content["transductive"], content.get("further", {})
    return Result(
        None if transductive is None else Accuracy(**transductive),
        Accuracy(**content["non_transductive"]),
        {name: Accuracy(**accuracy) for name, accuracy in further.items()},
    )


def evaluate(
    source: str | Path | Learned,
    split: Split = "test",
    *,
    dataset: str | None = None,
    data_root: str | None = None,
    data: str | None = None,
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
        changes |= {"data": "", "image_size": 0, "grey": False, "split_ratio": ""}
    if data_root is not None:
        changes |= {"data_root": data_root}
    if data is not None:
        changes |= _own_images(learned.config.task, data)
    config = learned.config.replace(**changes)
    config = config.replace(split_scheme=resolve_scheme(config.task.dataset, config.task.split_scheme))
    if data is None:
        _check_division(learned, config.task)
    store = split_store(config, split).to(where)
    evaluated = config.evaluation
    sampler = EpisodeSampler(store, config.task.way, config.task.shots, evaluated.queries)
    total, work = evaluated.eval_episodes, evaluated.eval_episodes * evaluated.eval_steps
    with joined() as processes, precision_of(where, precision):
        algorithm = build_algorithm(config, store.image_shape, where, work, processes, network)
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
        environment(),
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
    return {"data": data, "image_size": side, "grey": channels == 1, "split_scheme": "default", "split_seed": 0}


def _check_division(learned: Learned, task: TaskConfig) -> None:
    """Refuse own images that are divided otherwise than in the training: classes trained on would be test classes."""
    if not learned.data or not task.data or not divided_by_ratio(task):
        return
    splits = load_splits(task)
    train = without_leaks(splits.train, find_leaks(splits)) if task.exclude_duplicates else splits.train
    if train.fingerprint != learned.data:
        raise RunError(
            f"{learned.name} was trained on other images than {task.data} holds now, so classes it was trained on may "
            "count as test classes; bring the images back, or give --data with folders train, val and test of classes"
        )


def split_store(config: Config, split: Split) -> ImageStore:
    """The images of one split.

    Raises:
        DataError: there is no such split, or its data are damaged.
    """
    return load_splits(config.task).get(split)
