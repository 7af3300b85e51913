"""Flags of ``reptile reproduce``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from torchreptile.core.config import ExecutionName
from torchreptile.core.errors import ConfigError


@dataclass(frozen=True)
class Reproduce:
    """Reproduce a row of the papers' tables or a figure of the Reptile paper: train with the published settings,
    evaluate, and compare with the published numbers. If interrupted, run the same command again to resume.
    """

    experiment: Annotated[Positional[str], arg(metavar="NAME")] = ""
    """Name of the experiment; see --list."""
    list: bool = False
    """List the experiments."""
    budget: float = 1.0
    """Share of the published outer steps to train for, such as 0.25; step sizes still follow their full schedule."""
    seeds: int = 0
    """Trainings of each kind, with the seeds 0, 1, ...; 0 means one for a table row, and one or three for a figure."""
    split: Literal["train", "val", "test"] = "test"
    """Classes to evaluate on. Run again with another split to evaluate the same trainings on that one too."""
    episodes: int = 0
    """Episodes per evaluation; 0 means 10,000 for a table row, and 1,000 or 2,000 for a figure."""
    out: Path | None = None
    """Folder for runs and result.json, .md and .png, resumed if it exists; by default runs/reproduce-NAME."""
    at_once: int = 0
    """Trainings that run in parallel and share the threads; 0 means one per core on a CPU."""
    data_root: str = ""
    """mini-imagenet: the folder that holds the data set."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed: see reptile train --help-all."""

    def run(self) -> int:
        """Train and evaluate what is missing, print and draw the results; return the exit code."""
        from torchreptile.cli.commands.reproduce import experiments, reproduce
        from torchreptile.experiments.reproduce.runner import ExperimentOptions

        if self.list or not self.experiment:
            if self != Reproduce(list=self.list):
                raise ConfigError("no experiment is named; give a NAME, or only --list to see all of them")
            return experiments()
        share = "" if self.budget == 1 else f"-{self.budget:g}"
        out = self.out or Path("runs") / f"reproduce-{self.experiment}{share}"
        options = ExperimentOptions(
            share=self.budget,
            seeds=self.seeds,
            split=self.split,
            episodes=self.episodes,
            at_once=self.at_once,
            device=self.device,
            execution=self.execution,
            data_root=self.data_root,
        )
        return reproduce(self.experiment, out, options)
