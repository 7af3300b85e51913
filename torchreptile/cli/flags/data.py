"""``reptile data prepare`` and ``reptile data show``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from torchreptile.core.config import DATASETS, FUNCTIONS, Resize, TaskConfig
from torchreptile.core.errors import ConfigError


@dataclass(frozen=True)
class Prepare:
    """Read a data set, check every picture of it and keep it ready for training.

    mini-ImageNet cannot be downloaded: its pictures are ImageNet's. Any form that people have is read in place:
    images/ with train.csv, val.csv and test.csv; images-{train,val,test}.tar(.xz|.gz) with the csv lists;
    {train,val,test}/CLASS/*.jpg; the pickles mini-imagenet-cache-{train,val,test}.pkl or
    miniImageNet_category_split_*.pickle; ILSVRC-2012's train folder with the csv lists. Nothing is extracted.
    A split that is not there is left out.
    """

    dataset: Annotated[Positional[Literal["mini-imagenet"]], arg(metavar="mini-imagenet")]
    """The data set."""
    data_root: str = ""
    """Folder that holds it; by default $TORCHREPTILE_DATA/mini-imagenet."""
    resize: Resize = "nearest"
    """How pictures that are not 84 x 84 yet are brought to that size; published results used nearest. Train and
    evaluate with the same."""

    def run(self) -> int:
        """Prepare, and say what was found."""
        from torchreptile.cli.commands.data_prepare import prepare

        return prepare(self.data_root, self.resize)


@dataclass(frozen=True)
class Show:
    """Count what a data set or your own images hold, and draw some of it on one sheet: a few images of a few classes of
    every split, and a few tasks as training and evaluation draw them. Look at it before you train.
    """

    dataset: Annotated[Positional[str], arg(metavar="DATASET|FOLDER|FILE.csv")]
    """omniglot, glyphs, mini-imagenet, or own images as for reptile train --data."""
    out: Path = Path("sheet.png")
    """The picture to write."""
    way: int = 5
    """Classes in a task."""
    shots: int = 1
    """Support images per class."""
    queries: int = 3
    """Query images per class."""
    split_scheme: str = "default"
    """How classes are divided: see reptile train --help."""
    split_seed: int = 0
    """Seed of the shuffle that divides the classes."""
    split_ratio: str = ""
    """Own images: the shares of classes for train/val/test."""
    image_size: int = 0
    """Own images: height and width they are brought to."""
    grey: bool = False
    """Own images: one channel instead of three."""
    resize: Resize | Literal["auto"] = "auto"
    """How pictures of another size are brought to the one wanted."""

    def run(self) -> int:
        """Draw, and say what there is."""
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
            resize=self.resize,
        )
        return show(task, self.queries, self.out)


@dataclass(frozen=True)
class Data:
    """Prepare and check data sets."""

    action: Annotated[Prepare, subcommand("prepare")] | Annotated[Show, subcommand("show")]

    def run(self) -> int:
        """Do it."""
        return self.action.run()
