"""All settings of a run together: what goes with what, to and from JSON."""

from __future__ import annotations

import dataclasses
import json
import numbers
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_type_hints

from torchreptile.core.config.algorithm import AlgorithmRow, AlgorithmSettings
from torchreptile.core.config.algorithm_table import algorithm_row, all_rows, owner_of
from torchreptile.core.config.network import NetworkConfig
from torchreptile.core.config.optimization import InnerConfig, OuterConfig
from torchreptile.core.config.runtime import EvalConfig, RunConfig
from torchreptile.core.config.task import TaskConfig
from torchreptile.core.config.validation import require
from torchreptile.core.errors import ConfigError

MEASUREMENTS = 20  # per run, unless monitor_every is set
WHERE = ("device", "execution", "data_root")  # settings of where and how, which do not change what is trained

DATA = ("dataset", "data", "table")  # settings that name the data

S = TypeVar("S", bound=AlgorithmSettings)


@dataclass(frozen=True)
class Config:
    """All settings of one run."""

    task: TaskConfig = field(default_factory=TaskConfig)
    method: AlgorithmSettings = field(default_factory=AlgorithmSettings)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        require(
            type(self.method) is self.row.settings,
            f"the settings of {self.row.name} are a {self.row.settings.__name__}, not a {type(self.method).__name__}",
        )
        self._check_functions()
        self._check_steps()
        self._check_queries()
        self._check_embedding()
        self.method.check_with(self)
        images = self.task.way * (self.task.images_per_class - self.method.reserved_images)
        if self.inner.replacement:
            batch, what = self.inner.inner_batch, "points" if self.task.regression else "images"
            require(
                batch <= images,
                f"inner_batch is {batch}; with replacement it must be at most the {images} {what} of a task",
            )

    @property
    def row(self) -> AlgorithmRow:
        """The row of the algorithm that is trained."""
        return algorithm_row(self.method.algorithm)

    def own(self, kind: type[S]) -> S:
        """The algorithm's own settings, as the dataclass ``kind``.

        Raises:
            TypeError: the algorithm has others.
        """
        if not isinstance(self.method, kind):
            raise TypeError(f"the settings of {self.method.algorithm} are no {kind.__name__}")
        return self.method

    def _check_functions(self) -> None:
        """Refuse what makes sense for images alone, or for functions alone."""
        row, title = self.row, self.task.title
        drawings = not self.task.regression and not row.own_inversion
        why = f"{row.name} inverts its images itself" if row.own_inversion else f"the tasks of {title} are functions"
        require(drawings or not self.task.inverted, f"inverted is set, but {why}; leave it out")
        require(
            row.transductive or not self.evaluation.transductive,
            f"transductive is set, but {row.name} labels each query alone and has no such accuracy; leave it out",
        )
        if self.task.regression:
            if not row.fits_functions:
                fitting = ", ".join(other.name for other in all_rows() if other.fits_functions)
                raise ConfigError(f"algorithm is {row.name}, which labels images; functions are fitted by {fitting}")
            require(
                not self.evaluation.transductive,
                f"transductive is set, but the tasks of {title} are functions, measured by their error; leave it out",
            )
            return
        usual = NetworkConfig()
        for name, value in dataclasses.asdict(self.network).items():
            require(value == getattr(usual, name), f"{name} is {value}, but {title} has images; it is for functions")

    def _check_steps(self) -> None:
        row, inner = self.row, self.inner
        require(
            inner.inner_loss == "mean" or row.plain_steps,
            f"inner_loss is sum, but {row.name} goes down the mean; leave it out",
        )
        require(
            inner.inner_optimizer == "sgd" or not row.sgd_only,
            f"inner_optimizer is {inner.inner_optimizer}; {row.name} needs plain sgd",
        )

    def _check_queries(self) -> None:
        queries, row = self.task.train_queries, self.row
        if row.learns_from_queries:
            require(queries > 0, f"train_queries is {queries}; {row.name} learns from queries and needs at least 1")
        else:
            require(not queries, f"train_queries is {queries}, but {row.name} learns from no queries; leave it 0")

    def _check_embedding(self) -> None:
        row, way, steps = self.row, self.task.train_way, self.evaluation.finetune_steps
        require(
            not way or row.own_training_way,
            f"train_way is {way}, but {row.name} is trained with the way it is tested with",
        )
        if steps:
            require(
                row.compares_embeddings,
                f"finetune_steps is {steps}, but {row.name} fine-tunes no embedding; leave it out",
            )
            optimizer = self.inner.inner_optimizer
            require(optimizer == "sgd", f"inner_optimizer is {optimizer}; finetune_steps are taken by sgd")

    @property
    def variant(self) -> str:
        """The algorithm, and in which of its published forms: ``matching fine-tuned``."""
        values, usual = self.by_name(), DEFAULTS | dataclasses.asdict(self.row.settings())
        return " ".join(
            [
                self.method.algorithm,
                *(
                    form
                    for form, made_by in self.row.forms.items()
                    if all(values[name] != usual[name] for name in made_by.settings)
                ),
            ]
        )

    @property
    def adaptation(self) -> str:
        """What is done in an evaluation episode before its queries are labelled, as a phrase."""
        if self.row.adapts_by_steps:
            return f"{self.evaluation.eval_steps} inner steps"
        if not self.row.compares_embeddings:
            return "the support set read once"
        steps = self.evaluation.finetune_steps
        return f"embedding fine-tuned by {steps} steps" if steps else "no fine-tuning"

    @property
    def adapts_by_inner_lr(self) -> bool:
        """Whether ``inner_lr`` has an effect in an evaluation episode."""
        steps = self.row.adapts_by_steps and not self.row.learns_rates
        return steps or self.evaluation.finetune_steps > 0

    def with_inner_lr(self, inner_lr: float | None) -> Config:
        """Return a copy that adapts to support sets with another inner learning rate; None leaves it as it is.

        Raises:
            ConfigError: the rate is not a positive number, or has no effect on this algorithm.
        """
        if inner_lr is None:
            return self
        name, meta_learned = self.method.algorithm, self.row.learns_rates
        why = "learned the rates of its inner steps" if meta_learned else "takes no inner steps in an episode"
        require(self.adapts_by_inner_lr, f"inner_lr is {inner_lr}, but {name} {why}; leave it out")
        number = isinstance(inner_lr, numbers.Real) and not isinstance(inner_lr, bool)  # such as a number of NumPy
        return self.replace(inner_lr=float(inner_lr) if number else inner_lr)

    @property
    def monitor_every(self) -> int:
        """Outer steps between two measurements, the 0 of the setting resolved; time may bring them more often."""
        return self.run.monitor_every or max(1, self.outer.outer_steps // MEASUREMENTS)

    @property
    def training_batch(self) -> int:
        """Images, or points, in an inner mini-batch of a training task, the 0 of ``inner_batch`` resolved."""
        images = self.task.images_per_class - self.method.reserved_images
        return self.inner.inner_batch or self.task.way * images

    @property
    def evaluation_batch(self) -> int:
        """Images, or points, in an inner mini-batch of an evaluation episode, the 0 of ``eval_batch`` resolved."""
        return self.evaluation.eval_batch or self.task.way * self.task.shots

    @property
    def adapting_batch(self) -> int:
        """Images, or points, in an inner mini-batch for a support set of any size; 0 for all of it.

        Adam's step grows with the mini-batch, so it keeps to as many as an evaluation has.
        """
        return self.evaluation_batch if self.inner.inner_optimizer == "adam" else self.evaluation.eval_batch

    def replace(self, **changes: Any) -> Config:
        """Return a copy with these settings changed, named as on the command line.

        Another ``algorithm`` comes with its own settings, at their defaults unless they are among the changes. Other
        data are divided by their own default, unless ``split_scheme`` is among the changes.

        Raises:
            ConfigError: an unknown name, or a value that cannot work.

        Example:
            >>> Config().replace(way=20, algorithm="mann", mann_slots=64).method.mann_slots
            64
        """
        groups = {group.name: getattr(self, group.name) for group in dataclasses.fields(self)}
        if (name := changes.get("algorithm", self.method.algorithm)) != self.method.algorithm:
            groups["method"] = _settings_of(str(name))
        known = {field.name for part in groups.values() for field in dataclasses.fields(part)}
        if unknown := [name for name in changes if name not in known]:
            name, algorithm = unknown[0], groups["method"].algorithm
            if owner := owner_of(name):
                raise ConfigError(f"{name} is {changes[name]}, but algorithm is {algorithm}; it is for {owner}")
            raise ConfigError(f"unknown setting {name}; the settings are {', '.join(sorted(known))}")
        moved = any(changes.get(name, getattr(self.task, name)) != getattr(self.task, name) for name in DATA)
        if moved and "split_scheme" not in changes:
            changes = {**changes, "split_scheme": "default"}
        # All of a group at once: what goes together must not depend on the order it is named in.
        for group, part in groups.items():
            its = {field.name for field in dataclasses.fields(part)} & set(changes)
            groups[group] = dataclasses.replace(part, **{name: changes[name] for name in its})
        return Config(**groups)

    def by_name(self) -> dict[str, Any]:
        """The settings of all groups, as :meth:`replace` takes them."""
        return {name: value for group in dataclasses.asdict(self).values() for name, value in group.items()}

    def learning(self) -> dict[str, Any]:
        """Return the settings that decide the trained weights, by name: without the places of data and computation
        and the number of episodes of the final evaluation."""
        return {name: value for name, value in self.by_name().items() if name not in (*WHERE, "eval_episodes")}

    def departure(self, wanted: Config) -> str:
        """Return a setting that makes the training differ from ``wanted``, as text; empty if there is none."""
        theirs = wanted.learning()
        for name, value in self.learning().items():
            if theirs[name] != value:
                return f"{name} {value}, not {theirs[name]}"
        return ""

    def computed_as(self, other: Config) -> Config:
        """These settings, with the data read and the numbers computed where and how ``other`` says.

        Its execution ``auto`` leaves the execution as it is: sums are rounded as they were.
        """
        its = {name: value for name, value in other.by_name().items() if name in WHERE}
        if its["execution"] == "auto":
            del its["execution"]
        return self.replace(**its)

    def to_json(self) -> str:
        """The settings as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Settings written by :meth:`to_json`, perhaps of an earlier version; every name and type is checked.

        A setting that is not there has its default: newer ones leave what older settings meant as it was.

        Raises:
            ConfigError: the text is not such JSON.
        """
        try:
            groups = json.loads(text)
            known = get_type_hints(cls)
            if not isinstance(groups, dict) or set(groups) != set(known):
                raise ConfigError(f"settings must have exactly the groups {', '.join(known)}")
            method = groups["method"]
            if not isinstance(method, dict) or not isinstance(method.get("algorithm"), str):
                raise ConfigError("settings name no algorithm")
            known["method"] = algorithm_row(method["algorithm"]).settings
            return cls(**{name: _group_from_json(kind, groups[name]) for name, kind in known.items()})
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(f"settings are not JSON: {error}") from error


def _settings_of(algorithm: str) -> AlgorithmSettings:
    """The algorithm's own settings at their defaults."""
    return algorithm_row(algorithm).settings(algorithm=algorithm)


def _group_from_json(kind: Any, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{kind.__name__} is {values!r}; it must be an object of settings")
    unknown = sorted(set(values) - set(get_type_hints(kind)))
    require(not unknown, f"unknown settings in {kind.__name__}: {', '.join(unknown)}")
    return kind(**values)


# By name, of every setting that does not belong to one algorithm.
DEFAULTS: dict[str, Any] = Config().by_name()
