"""Flags of ``reptile data prepare`` and ``reptile data show``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from torchreptile.core.config import DATASETS, FUNCTIONS, Resize, TaskConfig
from torchreptile.core.errors import ConfigError


@dataclass(frozen=True)
class Prepare:
    """Read a data set, check every picture and store it ready for training.

    mini-ImageNet cannot be downloaded, because its pictures are ImageNet's. All common layouts are read in place:
    images/ with train.csv, val.csv and test.csv; images-{train,val,test}.tar(.xz|.gz) with the csv lists;
    {train,val,test}/CLASS/*.jpg; the pickles mini-imagenet-cache-{train,val,test}.pkl or
    miniImageNet_category_split_*.pickle; ILSVRC-2012's train folder with the csv lists. Nothing is extracted.
    A missing split is skipped.
    """

    dataset: Annotated[Positional[Literal["mini-imagenet"]], arg(metavar="mini-imagenet")]
    """The data set."""
    data_root: str = ""
    """Folder that holds the data set; by default $TORCHREPTILE_DATA/mini-imagenet."""
    resize: Resize = "nearest"
    """How pictures of other sizes are resized to 84 x 84; published results used nearest. Use the same for training and
    evaluation."""

    def run(self) -> int:
        """Prepare the data set and print its content; return the exit code."""
        from torchreptile.cli.commands.data_prepare import prepare

        return prepare(self.data_root, self.resize)


@dataclass(frozen=True)
class Show:
    """Count the classes and images of a data set or of your own images, and draw a contact sheet: a few images of a few
    classes of every split, and a few tasks as training and evaluation draw them. Look at it before you train.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATASET|FOLDER|FILE.csv")]
    """omniglot, glyphs, mini-imagenet, or your own images as for reptile train --data."""
    out: Path = Path("sheet.png")
    """PNG file to write."""
    way: int = 5
    """Classes in a task."""
    shots: int = 1
    """Support images per class."""
    queries: int = 3
    """Query images per class."""
    split_scheme: str = "default"
    """How classes are split: see reptile train --help-all."""
    split_seed: int = 0
    """Seed of the shuffle that splits the classes."""
    split_ratio: str = ""
    """Own images: the shares of classes for train/val/test."""
    image_size: int = 0
    """Own images: height and width they are resized to."""
    grey: bool = False
    """Own images: one channel instead of three."""
    shape: str = ""
    """Own images that are not square: channels x height x width, such as 3x32x64."""
    resize: Resize | Literal["auto"] = "auto"
    """How pictures of another size are resized."""

    def run(self) -> int:
        """Print the counts and draw the sheet; return the exit code."""
        from torchreptile.cli.commands.data_show import show

        if self.dataset in FUNCTIONS:
            raise ConfigError(f"reptile data show draws images, and {self.dataset} has functions")
        known = self.dataset in DATASETS
        task = TaskConfig(
            dataset=self.dataset if known else "folder",
            data="" if known else self.dataset,
            way=self.way,
            shots=self.shots,
            split_scheme=self.split_scheme,
            split_seed=self.split_seed,
            split_ratio=self.split_ratio,
            image_size=self.image_size,
            grey=self.grey,
            shape=self.shape,
            resize=self.resize,
        )
        return show(task, self.queries, self.out)


@dataclass(frozen=True)
class Data:
    """Prepare and check data sets."""

    action: Annotated[Prepare, subcommand("prepare")] | Annotated[Show, subcommand("show")]

    def run(self) -> int:
        """Run the chosen action; return the exit code."""
        return self.action.run()
