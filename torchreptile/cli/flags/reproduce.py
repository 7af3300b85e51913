"""``reptile reproduce``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from torchreptile.core.config import ExecutionName
from torchreptile.core.errors import ConfigError


@dataclass(frozen=True)
class Reproduce:
    """Reproduce a row of the papers' tables, or a figure of the Reptile paper: train with the
    published settings, measure, and put it beside what was published. Stopped or killed, the same command goes on.
    """

    experiment: Annotated[Positional[str], arg(metavar="NAME")] = ""
    """Which; --list names them."""
    list: bool = False
    """List what can be reproduced."""
    budget: float = 1.0
    """Share of the published outer steps to train for, such as 0.25; step sizes go through their whole schedule all the
    same."""
    seeds: int = 0
    """Trainings of each kind, with the seeds 0, 1, ...; 0 for one of a table row, and one or three of a figure."""
    split: Literal["train", "val", "test"] = "test"
    """Which classes to measure on. Asked again with another split, the same trainings are measured on that too."""
    episodes: int = 0
    """Episodes of each measurement; 0 for 10,000 of a table row, and 1,000 or 2,000 of a figure."""
    out: Path | None = None
    """Folder for the run folders and result.json, result.md, result.png; by default runs/reproduce-NAME, which is gone
    on with where it is there."""
    at_once: int = 0
    """Trainings side by side, each with its share of the threads; 0 for one per core on a CPU."""
    data_root: str = ""
    """mini-imagenet: the folder that holds it."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed: see reptile train --help."""

    def run(self) -> int:
        """Carry out what is missing, and print."""
        from torchreptile.cli.commands.reproduce import experiments, reproduce

        if self.list or not self.experiment:
            if self != Reproduce(list=self.list):
                raise ConfigError("what is to be reproduced? Give its NAME, or --list alone to list what can be")
            return experiments()
        share = "" if self.budget == 1 else f"-{self.budget:g}"
        out = self.out or Path("runs") / f"reproduce-{self.experiment}{share}"
        return reproduce(
            self.experiment,
            out,
            share=self.budget,
            seeds=self.seeds,
            split=self.split,
            episodes=self.episodes,
            at_once=self.at_once,
            device=self.device,
            execution=self.execution,
            data_root=self.data_root,
        )
