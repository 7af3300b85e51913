"""Settings of tasks: the data set, its splits, and the numbers of classes and images."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal

from torchreptile.core.config.validation import LARGEST_SEED, at_least, at_most, check_types, require
from torchreptile.core.user_code import names_a_file

Resize = Literal["nearest", "bicubic", "lanczos"]
DATASETS = ("omniglot", "glyphs", "mini-imagenet")  # the user's own images are the data set "folder"
FUNCTIONS = ("sine", "sine-maml", "table")  # data sets whose tasks are functions; the user's own are "table"
LARGEST_IMAGE = 1024  # height and width, pixels
LARGEST_SERIES = 1024 * 1024  # points


@dataclass(frozen=True)
class TaskConfig:
    """Settings of tasks: the data set, its splits, and the numbers of classes and images."""

    dataset: str = "omniglot"
    """Data set of images: omniglot (downloaded on first use), glyphs (generated) or mini-imagenet (you provide it: see
    reptile data prepare --help); for your own images see --data. Data set of functions: sine (as in Reptile) or
    sine-maml (as in MAML); for your own functions see --table."""
    data: str = ""
    """Your own images, in place of a data set: a folder of class folders; a folder with train, val and test folders of
    class folders; or a csv file with the columns file and label. See docs/own-data.md."""
    table: str = ""
    """Your own functions to fit, in place of a data set: a folder of csv files, one per task, or one csv file with a
    column task. Every row is a point. See docs/regression.md."""
    targets: str = ""
    """Your own functions: the columns to predict, separated by commas; all others are inputs. By default y, y1, y2, ...
    or, where there are none, the last column."""
    image_size: int = 0
    """Your own images: height and width to scale them to, in pixels; 0 means 84, or 28 with --grey."""
    grey: bool = False
    """Your own images: one channel instead of three."""
    shape: str = ""
    """Your own images that are not square, in place of --image-size and --grey: channels x height x width, such as
    3x32x64. A custom data set may have any number of channels, or series in place of images: channels x length, such
    as 6x128."""
    augment: float = 0.0
    """Move, rotate, scale and brighten the images of training tasks at random, whatever the algorithm: 1 is by up to a
    tenth of the width, 11 degrees, a tenth of the size and a fifth of the brightness; 0 not at all."""
    mirror: bool = False
    """Mirror half of the images of training tasks left to right. Not for drawings and characters, whose mirror images
    are other ones."""
    split_ratio: str = ""
    """Your own images that are not already split, and your own functions: the shares of classes or tasks for
    train/val/test; by default 0.6/0.2/0.2."""
    data_root: str = ""
    """mini-imagenet: the folder of the data set; by default $TORCHREPTILE_DATA/mini-imagenet."""
    resize: Resize | Literal["auto"] = "auto"
    """How pictures of another size are scaled. auto is nearest for mini-imagenet, as in published results, and lanczos
    for your own images."""
    exclude_duplicates: bool = False
    """Leave out of training every image whose pixels are identical to one in validation or test classes."""
    inverted: bool = False
    """Show the learner every image inverted: drawings as light ink on dark paper, so that the zero padding of
    convolutions looks like paper. The published code of MAML, Matching and Prototypical Networks does so with Omniglot,
    Reptile's does not."""
    split_scheme: str = "default"
    """How classes are divided: omniglot has reptile (the default), vinyals, vinyals-rotated, maml and
    background-evaluation; glyphs has seed; mini-imagenet has ravi."""
    split_seed: int = 0
    """Seed of the shuffle that divides the classes; independent of --seed, so that runs with different seeds share one
    split."""
    way: int = 5
    """Classes in a task; 1 for functions, which have none."""
    shots: int = 1
    """Labelled (support) images per class in evaluation; for functions, known points."""
    train_shots: int = 10
    """Images per class, or points, in a training task; 0 means as many as --shots."""
    train_way: int = 0
    """Classes in a training task, for algorithms that can be trained with another way than they are tested with
    (matching, protonet); for pretrained, images in a mini-batch, each of a different class. 0 means as many as
    --way."""
    train_queries: int = 0
    """Query images per class, or query points, in a training task in addition to --train-shots, for the algorithms that
    learn from queries."""

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
        self._check_shape()
        self._check_way()
        at_most(LARGEST_SEED, split_seed=self.split_seed)

    def _settle_data(self) -> None:
        """Set the data set that ``data`` or ``table`` implies; make paths absolute, as a run may resume elsewhere."""
        if names_a_file(self.dataset):
            object.__setattr__(self, "dataset", os.path.abspath(self.dataset))
        require(not (self.data and self.table), f"data is {self.data} and table is {self.table}; give one of them")
        for name, dataset in (("data", "folder"), ("table", "table")):
            if path := getattr(self, name):
                object.__setattr__(self, "dataset", dataset)
                object.__setattr__(self, name, os.path.abspath(path))
                _ = self.shares
        for name, dataset in (("data", "folder"), ("table", "table")):
            require(
                self.dataset != dataset or bool(getattr(self, name)),
                f"dataset is {dataset}, but {name} is not set; give --{name} FOLDER or FILE.csv",
            )
        require(
            not self.split_ratio or bool(self.data or self.table) or self.custom,
            f"split_ratio is {self.split_ratio}, but it applies to your own images only; give --data FOLDER or "
            "FILE.csv too",
        )
        for name, value in (("image_size", self.image_size), ("grey", self.grey)):
            require(
                not value or bool(self.data) or self.custom,
                f"{name} is {value}, but it applies to your own images only; give --data FOLDER or FILE.csv too",
            )
        require(
            not self.data_root or self.dataset == "mini-imagenet",
            f"data_root is {self.data_root}, but it is for mini-imagenet, and the data set is {self.dataset}; leave it "
            "out",
        )
        require(
            not self.targets or bool(self.table),
            f"targets is {self.targets}, but it applies to your own functions only; give --table FOLDER or FILE.csv "
            "too",
        )

    def _check_shape(self) -> None:
        """Refuse a shape that is none, or that the other settings contradict, and augmentation of what has no sides."""
        at_least(0, augment=self.augment)
        at_most(1, augment=self.augment)
        augmented = f"augment is {self.augment:g}" if self.augment else "mirror is set" if self.mirror else ""
        require(not augmented or not self.regression, f"{augmented}, but {self.title} has functions; it is for images")
        if not self.shape:
            return
        require(
            bool(self.data) or self.custom,
            f"shape is {self.shape}, but it applies to your own images only; give --data FOLDER or FILE.csv too",
        )
        for name, value in (("image_size", self.image_size), ("grey", self.grey)):
            require(not value, f"{name} is {value}, but shape is {self.shape}; give one of them")
        sizes = self.image_shape
        form = "channels x height x width, such as 3x32x64, or channels x length, such as 6x128"
        require(len(sizes) in (2, 3), f"shape is {self.shape}; it must be {form}")
        require(min(sizes) >= 1, f"shape is {self.shape}; every number must be at least 1")
        most = LARGEST_IMAGE if len(sizes) == 3 else LARGEST_SERIES
        require(
            max(sizes[1:]) <= most and sizes[0] <= LARGEST_IMAGE,
            f"shape is {self.shape}; sides must be at most {most:,}, and channels at most {LARGEST_IMAGE:,}",
        )
        series = len(sizes) == 2
        require(not augmented or not series, f"{augmented}, but shape is {self.shape}: series; it is for images")

    def _check_way(self) -> None:
        """Refuse a way other than 1 for functions, which have no classes, and a way below 2 for images."""
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
    def custom(self) -> bool:
        """Whether the data set is the user's code: a function in a file or in an installed package."""
        return self.dataset not in (*DATASETS, *FUNCTIONS, "folder")

    @property
    def regression(self) -> bool:
        """Whether tasks are functions to fit rather than classes of images."""
        return self.dataset in FUNCTIONS

    @property
    def drawn(self) -> bool:
        """Whether every task is newly generated, so that training and test never share one."""
        return self.regression and not self.table

    @property
    def kind(self) -> str:
        """The kind of task as text: ``5-way 1-shot``, or ``10-point``."""
        return f"{self.shots}-point" if self.regression else f"{self.way}-way {self.shots}-shot"

    @property
    def members(self) -> str:
        """The word for what is divided into splits: ``classes``, or ``tasks`` where these are functions."""
        return "tasks" if self.regression else "classes"

    @property
    def title(self) -> str:
        """The name of the data as text: the data set, or the folder or csv file of the user's own data."""
        own = self.data or self.table
        return os.path.splitext(os.path.basename(own))[0] if own else self.dataset.rpartition(":")[2]

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (C, H, W) of an image, or (C, L) of a series."""
        if self.shape:
            sizes = self.shape.lower().split("x")
            return tuple(int(size) for size in sizes) if all(map(_is_number, sizes)) else ()
        if self.data or self.custom:
            return 1 if self.grey else 3, self.own_image_size, self.own_image_size
        return (3, 84, 84) if self.dataset == "mini-imagenet" else (1, 28, 28)

    @property
    def own_image_size(self) -> int:
        """Height and width of the user's own images, with the 0 of ``image_size`` resolved."""
        return self.image_size or (28 if self.grey else 84)

    @property
    def large_images(self) -> bool:
        """Whether the images are of a size for which mini-ImageNet's published settings suit, not Omniglot's."""
        own = bool(self.data) or self.custom
        return self.dataset == "mini-imagenet" or (
            own and len(self.image_shape) == 3 and max(self.image_shape[1:]) >= 64
        )

    @property
    def shares(self) -> tuple[float, float, float]:
        """The shares of the classes for train, val and test, with the default of ``split_ratio`` resolved.

        Raises:
            ConfigError: ``split_ratio`` is not three shares that add up to 1.
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
        """Whether the images are drawings, black lines of one width on white, rather than pictures of any kind."""
        return self.dataset in ("omniglot", "glyphs")

    @property
    def images_per_class(self) -> int:
        """Images per class in a training task, with the 0 of ``train_shots`` resolved."""
        return self.train_shots or self.shots

    @property
    def training_way(self) -> int:
        """Classes in a training task, with the 0 of ``train_way`` resolved."""
        return self.train_way or self.way


def _is_number(text: str) -> bool:
    """Return whether a text is a whole number of at most nine digits."""
    return text.isascii() and text.isdigit() and len(text) <= 9
