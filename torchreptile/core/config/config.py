"""All settings of a run together: what goes with what, to and from JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from torchreptile.core.config.algorithm import FIT_FUNCTIONS, MethodConfig
from torchreptile.core.config.optimization import InnerConfig, OuterConfig
from torchreptile.core.config.runtime import EvalConfig, RunConfig
from torchreptile.core.config.task import TaskConfig
from torchreptile.core.config.validation import require
from torchreptile.core.errors import ConfigError

MEASUREMENTS = 20  # of a run, where nobody says
WHERE = ("device", "execution", "data_root")  # settings that say where and how, and nothing of what is learned


@dataclass(frozen=True)
class Config:
    """All settings of one run."""

    task: TaskConfig = field(default_factory=TaskConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    inner: InnerConfig = field(default_factory=InnerConfig)
    outer: OuterConfig = field(default_factory=OuterConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        self._check_functions()
        self._check_queries()
        name = self.method.algorithm
        require(
            self.inner.inner_loss == "mean" or self.method.takes_plain_steps,
            f"inner_loss is sum, but {name} goes down the mean; leave it out",
        )
        if self.method.adapts_by_sgd_alone:
            require(
                self.inner.inner_optimizer == "sgd",
                f"inner_optimizer is {self.inner.inner_optimizer}; {self.method.algorithm} needs plain sgd",
            )
        if self.method.algorithm == "mann":
            require(
                not self.evaluation.transductive,
                "transductive is set, but mann labels each query alone and has no such accuracy; leave it out",
            )
        self._check_embedding()
        images, what = self.task.way * self.task.images_per_class, "points" if self.task.regression else "images"
        batch, tail = self.inner.inner_batch, self.method.foml_tail
        if tail:
            require(
                tail < self.task.images_per_class,
                f"foml_tail is {tail}; it must be smaller than train_shots ({self.task.images_per_class})",
            )
            require(self.inner.inner_steps > 1, "foml_tail needs inner_steps of at least 2")
            images -= self.task.way * tail
        if self.inner.replacement:
            require(
                batch <= images,
                f"inner_batch is {batch}; with replacement it must be at most the {images} {what} of a task",
            )

    def _check_functions(self) -> None:
        """What makes sense for functions alone, and what does not."""
        method, title = self.method, self.task.title
        drawings = not self.task.regression and method.algorithm != "mann"
        why = "mann inverts its images itself" if method.algorithm == "mann" else f"the tasks of {title} are functions"
        require(drawings or not self.task.inverted, f"inverted is set, but {why}; leave it out")
        if self.task.regression:
            require(
                method.algorithm in FIT_FUNCTIONS,
                f"algorithm is {method.algorithm}, which labels images; functions are fitted by "
                f"{', '.join(FIT_FUNCTIONS)}",
            )
            require(
                not self.evaluation.transductive,
                f"transductive is set, but the tasks of {title} are functions, measured by their error; leave it out",
            )
            return
        usual = MethodConfig()
        for name in ("mlp_units", "mlp_layers", "mlp_activation"):
            value = getattr(method, name)
            require(value == getattr(usual, name), f"{name} is {value}, but {title} has images; it is for functions")

    def _check_queries(self) -> None:
        queries, name = self.task.train_queries, self.method.algorithm
        if self.method.learns_from_queries:
            require(queries > 0, f"train_queries is {queries}; {name} learns from queries and needs at least 1")
        else:
            require(not queries, f"train_queries is {queries}, but {name} learns from no queries; leave it 0")

    def _check_embedding(self) -> None:
        name, way, steps = self.method.algorithm, self.task.train_way, self.evaluation.finetune_steps
        trains_apart = self.method.compares_embeddings or name == "pretrained"
        require(not way or trains_apart, f"train_way is {way}, but {name} is trained with the way it is tested with")
        if steps:
            require(
                self.method.compares_embeddings,
                f"finetune_steps is {steps}, but {name} fine-tunes no embedding; leave it out",
            )
            optimizer = self.inner.inner_optimizer
            require(optimizer == "sgd", f"inner_optimizer is {optimizer}; finetune_steps are taken by sgd")

    @property
    def variant(self) -> str:
        """The algorithm, and in which of its published forms."""
        forms = {
            "FCE": self.method.fce_reads > 0,
            "cosine": self.method.pretrained_head == "cosine",
            "fine-tuned": self.evaluation.finetune_steps > 0,
        }
        return " ".join([self.method.algorithm, *(form for form, it_is in forms.items() if it_is)])

    @property
    def adaptation(self) -> str:
        """What is done in an evaluation episode before its queries are labelled, for people."""
        if self.method.adapts_by_steps:
            return f"{self.evaluation.eval_steps} inner steps"
        if self.method.algorithm == "mann":
            return "the support set read once"
        steps = self.evaluation.finetune_steps
        return f"embedding fine-tuned by {steps} steps" if steps else "no fine-tuning"

    @property
    def monitor_every(self) -> int:
        """Outer steps between two measurements, the 0 of the setting resolved; time may bring them more often."""
        return self.run.monitor_every or max(1, self.outer.outer_steps // MEASUREMENTS)

    @property
    def training_batch(self) -> int:
        """Images, or points, in an inner mini-batch of training, the 0 of the setting resolved."""
        images = self.task.images_per_class - self.method.foml_tail
        return self.inner.inner_batch or self.task.way * images

    @property
    def evaluation_batch(self) -> int:
        """The same of an evaluation episode."""
        return self.evaluation.eval_batch or self.task.way * self.task.shots

    @property
    def adapting_batch(self) -> int:
        """The same to adapt to a support set of any size; 0 for all of it. Adam's step grows with the mini-batch, and
        all of a large set would make a huge one: it keeps to as many as an evaluation has."""
        return self.evaluation_batch if self.inner.inner_optimizer == "adam" else self.evaluation.eval_batch

    def replace(self, **changes: Any) -> Config:
        """A copy with these settings changed, named as on the command line: ``config.replace(way=20)``.

        Raises:
            ConfigError: an unknown name, or a value that cannot work.
        """
        groups = {group.name: getattr(self, group.name) for group in dataclasses.fields(self)}
        if unknown := [name for name in changes if name not in setting_names()]:
            raise ConfigError(f"unknown setting {unknown[0]}; the settings are {', '.join(setting_names())}")
        # All of a group at once: what goes together must not depend on the order it is named in.
        for group, part in groups.items():
            its = {field.name for field in dataclasses.fields(part)} & set(changes)
            groups[group] = dataclasses.replace(part, **{name: changes[name] for name in its})
        return Config(**groups)

    def by_name(self) -> dict[str, Any]:
        """The settings of all groups, as :meth:`replace` takes them."""
        return {name: value for group in dataclasses.asdict(self).values() for name, value in group.items()}

    def learning(self) -> dict[str, Any]:
        """Those by name that decide what is learned: not where the data lie, nor what computes, nor on how many
        episodes it is measured in the end."""
        return {name: value for name, value in self.by_name().items() if name not in (*WHERE, "eval_episodes")}

    def departure(self, wanted: Config) -> str:
        """A setting that makes it learn otherwise than ``wanted``, for people; empty where there is none."""
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
            return cls(**{name: _group_from_json(kind, groups[name]) for name, kind in known.items()})
        except (json.JSONDecodeError, RecursionError) as error:
            raise ConfigError(f"settings are not JSON: {error}") from error


def setting_names() -> list[str]:
    """The names of all settings, in the order of their groups."""
    return [field.name for group in get_type_hints(Config).values() for field in dataclasses.fields(group)]


def _group_from_json(kind: Any, values: Any) -> Any:
    if not isinstance(values, dict):
        raise ConfigError(f"{kind.__name__} is {values!r}; it must be an object of settings")
    unknown = sorted(set(values) - set(get_type_hints(kind)))
    require(not unknown, f"unknown settings in {kind.__name__}: {', '.join(unknown)}")
    return kind(**values)
