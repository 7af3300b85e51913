"""What a task is made of: its data, their split, and how many of what."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

from torchreptile.core.config.validation import LARGEST_SEED, at_least, at_most, check_types, require

Resize = Literal["nearest", "bicubic", "lanczos"]
DATASETS = ("omniglot", "glyphs", "mini-imagenet")  # that have a name; own images are the data set "folder"
FUNCTIONS = ("sine", "sine-maml", "table")  # data sets whose tasks are functions; own ones are "table"
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
            not self.data_root or self.dataset == "mini-imagenet",
            f"data_root is {self.data_root}, but it is for mini-imagenet, and the data set is {self.dataset}; leave it "
            "out",
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
    def large_images(self) -> bool:
        """Whether the images are of a size for which mini-ImageNet's published settings suit, not Omniglot's."""
        return self.dataset == "mini-imagenet" or (bool(self.data) and self.own_image_size >= 64)

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
    def drawn_by_hand(self) -> bool:
        """Whether the images are lines of one width, black on white, rather than pictures of any kind."""
        return self.dataset in ("omniglot", "glyphs")

    @property
    def images_per_class(self) -> int:
        """Images per class in a training task, the 0 of ``train_shots`` resolved."""
        return self.train_shots or self.shots

    @property
    def training_way(self) -> int:
        """Classes in a training task, the 0 of ``train_way`` resolved."""
        return self.train_way or self.way
