"""Every setting of a run, as frozen dataclasses: checked at the door, to and from JSON.

The field docstrings are the command line's ``--help``. The defaults are the published Omniglot 5-way
settings (Reptile paper, appendix A).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

from torchreptile.checks import at_least, at_most, check_types, positive, require
from torchreptile.errors import ConfigError

AlgorithmName = Literal[
    "reptile", "foml", "maml", "fomaml", "anil", "meta-sgd",
    "matching", "protonet", "pretrained", "scratch", "mann", "meta-lstm",
]  # fmt: skip
OuterOptimizer = Literal["sgd", "adam"]
InnerOptimizer = Literal["adam", "sgd"]
InnerStatePolicy = Literal["share", "carry", "reset"]
LARGEST_SEED = 2**63 - 1  # what a torch.Generator takes
ExecutionName = Literal["auto", "loop", "grouped", "matmul", "vmap", "compiled", "native"]
Precision = Literal["fp32", "tf32", "bf16"]
Resize = Literal["nearest", "bicubic", "lanczos"]
Activation = Literal["tanh", "relu"]
DATASETS = ("omniglot", "glyphs", "mini-imagenet")  # that have a name; own images are the data set "folder"
FUNCTIONS = ("sine", "sine-maml", "table")  # data sets whose tasks are functions; own ones are "table"
FIT_FUNCTIONS = ("reptile", "foml", "maml", "fomaml", "anil", "meta-sgd", "meta-lstm", "scratch")
MEASUREMENTS = 20  # of a run, where nobody says
LARGEST_IMAGE = 1024  # pixels high and wide


@dataclass(frozen=True)
class TaskConfig:
    """What a task is made of."""

    dataset: str = "omniglot"
    """Data set: omniglot (downloaded on first use), glyphs (generated) or mini-imagenet (yours: see
    reptile data prepare --help). Own images: see --data. Of functions: sine (Reptile's) and sine-maml (MAML's). Own
    functions: see --table."""
    data: str = ""
    """Own images, in place of a data set: a folder of class folders; one with train, val and test folders of class
    folders; or a csv file with the columns file and label. See docs/own-data.md."""
    table: str = ""
    """Own functions to fit, in place of a data set: a folder of csv files, one per task, or one csv file with a column
    task. Every row is a point. See docs/regression.md."""
    targets: str = ""
    """Own functions: the columns to predict, parted by commas; all others are inputs. By default y, y1, y2, ... or,
    where there are none, the last column."""
    image_size: int = 0
    """Own images: height and width they are brought to, pixels; 0 means 84, or 28 with --grey."""
    grey: bool = False
    """Own images: one channel instead of three."""
    split_ratio: str = ""
    """Own images that are not divided yet, and own functions: the shares of classes or tasks for train/val/test; by
    default 0.6/0.2/0.2."""
    data_root: str = ""
    """mini-imagenet: the folder that holds it; by default $TORCHREPTILE_DATA/mini-imagenet."""
    resize: Resize | Literal["auto"] = "auto"
    """How pictures of another size are brought to the one wanted. auto is nearest for mini-imagenet, as published
    results had it, and lanczos for own images."""
    exclude_duplicates: bool = False
    """Leave out of training every image that is also in validation or test classes, pixel by pixel."""
    inverted: bool = False
    """Show the learner every image inverted: drawings as light ink on dark paper, where the padding of convolutions is
    paper too. The published code of MAML, Matching and Prototypical Networks does so with Omniglot, Reptile's not."""
    split_scheme: str = "default"
    """How classes are divided: omniglot has reptile (the default), vinyals and background-evaluation; glyphs has
    seed, mini-imagenet ravi."""
    split_seed: int = 0
    """Seed of the shuffle that divides the classes; apart from --seed, so that seeds compare on one split."""
    way: int = 5
    """Classes in a task; 1 for functions, which have none."""
    shots: int = 1
    """Labelled (support) images per class in evaluation; known points of a function."""
    train_shots: int = 10
    """Images per class, or points, in a training task; 0 means as many as --shots."""
    train_way: int = 0
    """Classes in a training task, for algorithms that can be tested with another way than they were trained with
    (matching, protonet); images, each of another class, in a mini-batch of pretrained. 0 means as many as --way."""
    train_queries: int = 0
    """Query images per class, or points, in a training task, beside --train-shots, for the algorithms that learn from
    queries."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(1, shots=self.shots)
        at_least(0, train_shots=self.train_shots, train_queries=self.train_queries, split_seed=self.split_seed)
        if self.train_way:
            at_least(2, train_way=self.train_way)
        if self.image_size:
            at_least(4, image_size=self.image_size)
            at_most(LARGEST_IMAGE, image_size=self.image_size)
        self._settle_data()
        self._check_way()
        at_most(LARGEST_SEED, split_seed=self.split_seed)

    def _settle_data(self) -> None:
        """Own data are a data set of their own; their path must hold in whatever folder the run goes on."""
        require(not (self.data and self.table), f"data is {self.data} and table is {self.table}; give one of them")
        for name, dataset in (("data", "folder"), ("table", "table")):
            if path := getattr(self, name):
                object.__setattr__(self, "dataset", dataset)
                object.__setattr__(self, name, os.path.abspath(path))
                _ = self.shares
        for name, dataset in (("data", "folder"), ("table", "table")):
            require(
                self.dataset != dataset or bool(getattr(self, name)),
                f"dataset is {dataset}, but {name} names none; give --{name} FOLDER or FILE.csv",
            )
        require(
            not self.split_ratio or bool(self.data or self.table),
            f"split_ratio is {self.split_ratio}, but it is for own images; give --data FOLDER or FILE.csv too",
        )
        for name, value in (("image_size", self.image_size), ("grey", self.grey)):
            require(
                not value or bool(self.data),
                f"{name} is {value}, but it is for own images; give --data FOLDER or FILE.csv too",
            )
        require(
            not self.targets or bool(self.table),
            f"targets is {self.targets}, but it is for own functions; give --table FOLDER or FILE.csv too",
        )

    def _check_way(self) -> None:
        """Functions have no classes; elsewhere there must be some to tell apart."""
        if not self.regression:
            at_least(2, way=self.way)
            return
        require(
            self.way == 1,
            f"way is {self.way}, but the tasks of {self.title} are functions, which have no classes; it must be 1, as "
            "in the preset sine",
        )
        require(not self.exclude_duplicates, "exclude_duplicates is for images, not for functions; leave it out")

    @property
    def regression(self) -> bool:
        """Whether tasks are functions to fit, not classes to tell apart."""
        return self.dataset in FUNCTIONS

    @property
    def drawn(self) -> bool:
        """Whether every task is drawn anew, so that no two trainings or tests share one."""
        return self.regression and not self.table

    @property
    def kind(self) -> str:
        """What a task is, for people: ``5-way 1-shot``, or ``10-point``."""
        return f"{self.shots}-point" if self.regression else f"{self.way}-way {self.shots}-shot"

    @property
    def members(self) -> str:
        """What is divided into splits: classes, or tasks where these are functions."""
        return "tasks" if self.regression else "classes"

    @property
    def title(self) -> str:
        """What the data are called, for people: the data set, or the folder or csv file of own images or functions."""
        own = self.data or self.table
        return os.path.splitext(os.path.basename(own))[0] if own else self.dataset

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of its images."""
        if self.data:
            return 1 if self.grey else 3, self.own_image_size, self.own_image_size
        return (3, 84, 84) if self.dataset == "mini-imagenet" else (1, 28, 28)

    @property
    def own_image_size(self) -> int:
        """Height and width of own images, the 0 of ``image_size`` resolved."""
        return self.image_size or (28 if self.grey else 84)

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of the classes, for train, val and test; the default of ``split_ratio`` resolved.

        Raises:
            ConfigError: they are not three shares of a whole.
        """
        try:
            train, val, test = (float(share) for share in (self.split_ratio or "0.6/0.2/0.2").split("/"))
        except ValueError:
            train = val = test = math.nan
        require(
            min(train, val, test) >= 0 and math.isclose(train + val + test, 1, abs_tol=1e-6),
            f"split_ratio is {self.split_ratio}; it must be three shares that add up to 1, such as 0.6/0.2/0.2",
        )
        return train, val, test

    @property
    def images_per_class(self) -> int:
        """Images per class in a training task, the 0 of ``train_shots`` resolved."""
        return self.train_shots or self.shots

    @property
    def training_way(self) -> int:
        """Classes in a training task, the 0 of ``train_way`` resolved."""
        return self.train_way or self.way


@dataclass(frozen=True)
class MethodConfig:
    """Which few-shot learner is trained, and what single ones have for themselves."""

    algorithm: AlgorithmName = "reptile"
    """reptile; foml (first-order MAML as the Reptile paper has it: the last inner step's change alone); maml (through
    the inner steps); fomaml (first-order MAML as the MAML paper has it: the gradient of the queries' loss at the
    adapted weights); anil (maml that adapts the head alone); meta-sgd (maml that learns a rate for every weight);
    matching (Matching Networks); protonet (Prototypical Networks); pretrained (no meta-learning: features of a
    classifier of all training classes); scratch (nothing learned before the task); mann (a network with an external
    memory); meta-lstm (a learned optimiser)."""
    foml_tail: int = 0
    """foml: images per class kept apart for the last inner step; 0 means a shared tail."""
    fce_reads: int = 0
    """matching: reads of the support set by the attention LSTM of the full context embeddings; 0 means without."""
    attention_scale: float = 1.0
    """matching: what cosines are multiplied by before the softmax; 1 is the paper's equation, by which five classes can
    get no more than 65% of the attention and training is slow."""
    pretrained_head: Literal["linear", "cosine"] = "linear"
    """pretrained: the classifier, of training classes and then of a task's: linear (Baseline of Chen et al. 2019) or
    cosine (their Baseline++)."""
    mann_units: int = 200
    """mann: units of the LSTM controller."""
    mann_slots: int = 128
    """mann: rows of the memory."""
    mann_width: int = 40
    """mann: numbers in a row of the memory."""
    mann_heads: int = 4
    """mann: read heads, which are also the least used rows that may be written."""
    mann_decay: float = 0.99
    """mann: what remains of a row's usage from one image to the next."""
    mann_jitter: float = 0.0
    """mann: how far training images are moved and turned at random: 1 is up to a tenth of their width and 11 degrees,
    0 not at all."""
    meta_lstm_units: int = 20
    """meta-lstm: units of the LSTM that reads losses and gradients."""
    meta_lstm_filters: int = 32
    """meta-lstm: filters of every convolution of the learner."""
    mlp_units: int = 64
    """Functions: units of every hidden layer of the network."""
    mlp_layers: int = 2
    """Functions: hidden layers."""
    mlp_activation: Activation = "tanh"
    """Functions: tanh or relu, after every hidden layer."""

    def __post_init__(self) -> None:
        check_types(self)
        self._check_memory()
        self._require_algorithm("mann", mann_jitter=self.mann_jitter)
        at_least(1, meta_lstm_units=self.meta_lstm_units, meta_lstm_filters=self.meta_lstm_filters)
        at_least(1, mlp_units=self.mlp_units, mlp_layers=self.mlp_layers)
        at_least(0, foml_tail=self.foml_tail, fce_reads=self.fce_reads)
        self._require_algorithm("foml", foml_tail=self.foml_tail)
        positive(attention_scale=self.attention_scale)
        scale = 0 if self.attention_scale == 1 else self.attention_scale
        self._require_algorithm("matching", fce_reads=self.fce_reads, attention_scale=scale)
        self._require_algorithm("pretrained", pretrained_head="" if self.pretrained_head == "linear" else "cosine")

    def _require_algorithm(self, its: str, **settings: float | str) -> None:
        """Settings of one algorithm alone are left as they are by the others."""
        for name, value in settings.items():
            require(not value or self.algorithm == its, f"{name} is {value}, but algorithm is {self.algorithm}")

    def _check_memory(self) -> None:
        at_least(1, mann_units=self.mann_units, mann_width=self.mann_width, mann_heads=self.mann_heads)
        at_least(0, mann_decay=self.mann_decay, mann_jitter=self.mann_jitter)
        at_most(1, mann_decay=self.mann_decay)
        require(
            self.mann_slots >= self.mann_heads,
            f"mann_slots is {self.mann_slots}; it must be at least mann_heads ({self.mann_heads})",
        )

    @property
    def learns_from_queries(self) -> bool:
        """Whether its training tasks have a query set of ``train_queries`` images per class."""
        return self.algorithm not in ("reptile", "foml", "pretrained", "scratch", "mann")

    @property
    def takes_inner_steps(self) -> bool:
        """Whether it trains step by step in every task, so that ``inner_steps`` mean something."""
        return self.algorithm not in ("matching", "protonet", "pretrained", "scratch", "mann")

    @property
    def compares_embeddings(self) -> bool:
        """Whether queries are labelled by comparing embeddings; such an embedding may be fine-tuned in the task."""
        return self.algorithm in ("matching", "protonet")

    @property
    def adapts_by_sgd_alone(self) -> bool:
        """Whether its inner steps are plain SGD, as what goes through them or beside them demands."""
        return self.algorithm in ("maml", "fomaml", "anil", "meta-sgd")


@dataclass(frozen=True)
class InnerConfig:
    """How the network is trained on one task."""

    inner_optimizer: InnerOptimizer = "adam"
    """adam (beta1 = 0, beta2 = 0.999, eps = 1e-8) or plain sgd."""
    inner_lr: float = 1e-3
    """Learning rate of the inner optimiser."""
    inner_batch: int = 10
    """Images or points in an inner mini-batch; 0 takes all of the task's in every step."""
    inner_steps: int = 5
    """Inner steps per task in training."""
    replacement: bool = False
    """Draw each inner mini-batch independently instead of cycling through the task's images."""
    inner_state: InnerStatePolicy = "share"
    """Adam's second moment: share (every task of a meta-batch starts from the same one, averaged afterwards),
    carry (task after task, as the original code; slow), reset (afresh for every task; another algorithm)."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(inner_lr=self.inner_lr)
        at_least(0, inner_batch=self.inner_batch)
        at_least(1, inner_steps=self.inner_steps)


@dataclass(frozen=True)
class OuterConfig:
    """How what is meta-learned is moved."""

    outer_steps: int = 100_000
    """Outer (meta) steps."""
    meta_batch: int = 5
    """Tasks per outer step."""
    outer_optimizer: OuterOptimizer = "sgd"
    """What moves by the meta-gradient: sgd (Reptile's step towards the mean of the tasks) or adam."""
    outer_clip: float = 0.0
    """Bound on the meta-gradient; 0 means none."""
    outer_clip_by: Literal["value", "norm"] = "value"
    """Whether the bound is on each number of the meta-gradient or on its length."""
    outer_step_size: float = 1.0
    """Outer step size at the start; Adam's learning rate."""
    outer_step_size_final: float = 0.0
    """Outer step size at the end; annealed linearly in between."""
    outer_halve_every: int = 0
    """Halve the outer step size after every so many outer steps, beside that; 0 means never."""
    max_minutes: float = 0.0
    """Stop after this many minutes of training; annealing then follows the time, so that the step size still
    ends at its final value. 0 means no limit."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(1, outer_steps=self.outer_steps, meta_batch=self.meta_batch)
        at_least(
            0,
            max_minutes=self.max_minutes,
            outer_clip=self.outer_clip,
            outer_step_size=self.outer_step_size,
            outer_step_size_final=self.outer_step_size_final,
            outer_halve_every=self.outer_halve_every,
        )

    def step_size_at(self, done: float, step: int = 0) -> float:
        """The outer step size when the share ``done`` (0 to 1) of the training, or ``step`` outer steps, are done."""
        size = (1 - done) * self.outer_step_size + done * self.outer_step_size_final
        halvings = step // self.outer_halve_every if self.outer_halve_every else 0
        return size / 2.0**halvings


@dataclass(frozen=True)
class EvalConfig:
    """How accuracy, or the error of functions, is measured."""

    eval_steps: int = 50
    """Inner steps on the support set of an evaluation episode; 0 leaves the weights as they were meta-learned."""
    eval_batch: int = 5
    """Images in an inner mini-batch of an evaluation episode; 0 takes all of its support set in every step."""
    finetune_steps: int = 0
    """matching, protonet: train the embedding on by so many steps of size --inner-lr on the support set of an
    evaluation episode before its queries are labelled; 0 means no fine-tuning."""
    eval_episodes: int = 10_000
    """Episodes of a final evaluation."""
    queries: int = 1
    """Query images per class, or points, in an evaluation episode."""
    transductive: bool = False
    """Select the best checkpoint by transductive accuracy. Both accuracies are always measured and shown."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(0, eval_batch=self.eval_batch, eval_steps=self.eval_steps, finetune_steps=self.finetune_steps)
        at_least(1, queries=self.queries)
        at_least(2, eval_episodes=self.eval_episodes)


@dataclass(frozen=True)
class RunConfig:
    """How the run is carried out; nothing here changes what is learned, but for the seed and rounding."""

    seed: int = 0
    """Seed of initialisation, tasks and mini-batches."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto takes a GPU if there is one."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed; all ways give the same numbers up to rounding. auto chooses by device,
    map size, network and amount of work, and says why. native: the built-in networks on a CPU in fp32, by C++ that is
    compiled on first use."""
    precision: Precision = "fp32"
    """fp32; tf32 and bf16 round what goes into matrix products (weights and optimiser state stay in fp32)."""
    task_chunk: int = 0
    """Tasks computed at a time, to bound memory; 0 takes as many as fit."""
    unrolled_steps: int = 0
    """maml, anil, meta-sgd: inner steps whose graph is in memory at a time; those before are computed again on the way
    back. 0 takes as many as fit."""
    monitor_every: int = 0
    """Outer steps between measurements of accuracy on training and validation classes; 0 means 20 per run, by time
    where --max-minutes limits it."""
    monitor_episodes: int = 100
    """Episodes of each such measurement."""
    save_minutes: float = 1.0
    """Minutes between checkpoints."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(0, monitor_every=self.monitor_every, save_minutes=self.save_minutes, seed=self.seed)
        at_least(0, task_chunk=self.task_chunk, unrolled_steps=self.unrolled_steps)
        at_most(LARGEST_SEED, seed=self.seed)
        at_least(2, monitor_episodes=self.monitor_episodes)


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
            require(self.method.compares_embeddings, f"finetune_steps is {steps}, but {name} has eval_steps for that")
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
        if self.method.algorithm == "mann":
            return "the support set read once"
        if not self.method.compares_embeddings:
            return f"{self.evaluation.eval_steps} inner steps"
        steps = self.evaluation.finetune_steps
        return f"embedding fine-tuned by {steps} steps" if steps else "no fine-tuning"

    @property
    def monitor_every(self) -> int:
        """Outer steps between two measurements, the 0 of the setting resolved; time may bring them more often."""
        return self.run.monitor_every or max(1, self.outer.outer_steps // MEASUREMENTS)

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
