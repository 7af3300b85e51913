"""``reptile compare``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from torchreptile.core.config import AlgorithmName, ExecutionName
from torchreptile.core.config.validation import at_least


@dataclass(frozen=True)
class Compare:
    """Train several algorithms on one task under the same budget, measure all alike, and put them into one table and
    one picture. Stopped, the same command goes on. Where there are validation classes, the checkpoint that was best
    on them is measured. Under a budget the outer step size of all falls to 0, as a training that ends early needs.
    """

    preset: Annotated[Positional[str], arg(metavar="PRESET")]
    """The task; see ``reptile presets``. Every algorithm has the settings published with it for that task."""
    algorithms: tuple[AlgorithmName, ...]
    """Which algorithms."""
    max_minutes: float = 20.0
    """Minutes of training for each; 0 takes as many outer steps as published."""
    seeds: int = 1
    """Trainings of each algorithm, with the seeds 0, 1, ..."""
    out: Path | None = None
    """Folder for the run folders, comparison.json, comparison.png; by default runs/compare-PRESET, which is gone on
    with where it is there."""
    split: Literal["train", "val", "test"] = "test"
    """Which classes to measure on."""
    episodes: int = 1000
    """Episodes of each measurement."""
    split_scheme: str = "default"
    """How classes are divided: see reptile train --help. omniglot's vinyals has validation classes, reptile has not."""
    outer_steps: int = 0
    """Outer steps of each training; 0 means as published, or as many as the time allows."""
    data_root: str = ""
    """mini-imagenet: the folder that holds it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed: see reptile train --help."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Train what is missing, and print."""
        from torchreptile.cli.commands.compare import compare

        at_least(0, outer_steps=self.outer_steps)
        changes: dict[str, object] = {
            "max_minutes": self.max_minutes,
            "split_scheme": self.split_scheme,
            "data_root": self.data_root,
            "device": self.device,
            "execution": self.execution,
        }
        if self.outer_steps:
            changes["outer_steps"] = self.outer_steps
        out = self.out or Path("runs") / f"compare-{self.preset}"
        return compare(self.preset, self.algorithms, self.seeds, out, self.split, self.episodes, changes, self.json)
