"""Flags of ``reptile compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from torchreptile.core.config import ExecutionName
from torchreptile.core.config.validation import at_least


@dataclass(frozen=True)
class Compare:
    """Train several algorithms on one task under the same budget, evaluate them alike, and show them in one table and
    one figure. If interrupted, run the same command again to resume. With validation classes, the checkpoint that did
    best on them is evaluated. Under a budget, every algorithm's outer step size is annealed to 0.
    """

    preset: Annotated[Positional[str], arg(metavar="PRESET")]
    """The task; see ``reptile presets``. Every algorithm uses the settings published with it for that task."""
    algorithms: tuple[str, ...]
    """The algorithms to compare; your own as FILE.py:CLASS."""
    max_minutes: float = 20.0
    """Minutes of training per run; 0 trains for the published number of outer steps."""
    seeds: int = 1
    """Trainings of each algorithm, with the seeds 0, 1, ..."""
    out: Path | None = None
    """Folder for runs, comparison.json and comparison.png, resumed if it exists; by default runs/compare-PRESET, or
    named after your own images."""
    split: Literal["train", "val", "test"] = "test"
    """Classes to evaluate on."""
    episodes: int = 1000
    """Episodes per evaluation."""
    split_scheme: str = "default"
    """How classes are split: see reptile train --help-all. omniglot's vinyals has validation
    classes, reptile has none."""
    outer_steps: int = 0
    """Outer steps per training; 0 trains for the published number, or as many as the time allows."""
    data: str = ""
    """Your own images, in place of the preset's: see reptile train --help."""
    image_size: int = 0
    """Your own images: height and width to scale them to, in pixels; 0 means 84, or 28 with --grey."""
    grey: bool = False
    """Your own images: one channel instead of three."""
    shape: str = ""
    """Your own images that are not square: channels x height x width, such as 3x32x64."""
    split_ratio: str = ""
    """Your own images: the shares of classes for train/val/test; by default 0.6/0.2/0.2."""
    augment: float = 0.0
    """How much the images of training tasks are changed at random, from 0 to 1: see reptile train --help."""
    mirror: bool = False
    """Mirror half of the images of training tasks left to right."""
    data_root: str = ""
    """mini-imagenet: the folder that holds the data set."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed: see reptile train --help-all."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Train and evaluate what is missing, print and draw the comparison; return the exit code."""
        from torchreptile.cli.commands.compare import compare

        at_least(0, outer_steps=self.outer_steps)
        changes: dict[str, object] = {
            "max_minutes": self.max_minutes,
            "split_scheme": self.split_scheme,
            "data": self.data,
            "image_size": self.image_size,
            "grey": self.grey,
            "shape": self.shape,
            "split_ratio": self.split_ratio,
            "augment": self.augment,
            "mirror": self.mirror,
            "data_root": self.data_root,
            "device": self.device,
            "execution": self.execution,
        }
        if self.outer_steps:
            changes["outer_steps"] = self.outer_steps
        out = self.out or Path("runs") / f"compare-{Path(self.data).stem if self.data else self.preset}"
        return compare(self.preset, self.algorithms, self.seeds, out, self.split, self.episodes, changes, self.json)
