"""Flags of ``reptile evaluate``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from torchreptile.core.config import ExecutionName, Precision
from torchreptile.core.distributed.launcher import launch, started_by_launcher


@dataclass(frozen=True)
class Evaluate:
    """Measure transductive and inductive accuracy with 95% confidence intervals, and show them with published numbers;
    for regression, the mean squared error before and after adaptation."""

    source: Annotated[Positional[Path], arg(metavar="RUN|WEIGHTS")]
    """A run folder, or the name of shipped weights such as omniglot-5way."""
    split: Literal["train", "val", "test"] = "test"
    """Classes to evaluate on."""
    episodes: int | None = None
    """Number of episodes; by default the training's --eval-episodes (10,000 as published)."""
    shots: int | None = None
    """Support images per class; by default the training's."""
    way: int | None = None
    """Classes per episode; must be the training's, except for matching, protonet and pretrained."""
    checkpoint: Literal["last", "best"] = "last"
    """For a run folder: the last checkpoint, as published, or the one with the best validation accuracy."""
    dataset: str | None = None
    """Data set to evaluate on; by default the training's."""
    data_root: str | None = None
    """Folder that holds the data set; by default the training's."""
    data: str | None = None
    """Your own images to evaluate on, as for reptile train --data; resized to the size the network was trained on."""
    table: str | None = None
    """Your own functions to evaluate on, as for reptile train --table; standardised like the training's."""
    queries: int | None = None
    """Query images per class, or query points; by default the training's (1 in the published Reptile evaluations)."""
    eval_steps: int | None = None
    """Inner steps per episode; by default the training's."""
    eval_batch: int | None = None
    """Images in an inner mini-batch; by default the training's."""
    inner_lr: float | None = None
    """Learning rate of the inner steps; by default the training's."""
    finetune_steps: int | None = None
    """matching, protonet: fine-tuning steps of the embedding in every episode, 0 for none; by default the
    training's."""
    seed: int = 0
    """Seed of episodes and mini-batches."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    execution: ExecutionName = "auto"
    """How episodes are computed: see reptile train --help-all."""
    precision: Precision = "fp32"
    """fp32, tf32 or bf16."""
    task_chunk: int = 0
    """Episodes computed at a time, to bound memory; 0 takes as many as fit."""
    model: str = ""
    """The custom network that was trained, such as net.py:Net: see reptile train --help."""
    workers: int = 1
    """Processes on this machine that share the episodes; one per core is fastest on a CPU."""
    per_episode: Path | None = None
    """Also write every episode into this new csv file: its accuracy, classes and images, and what each query was
    labelled as."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Evaluate and print the results; return the exit code."""
        if self.workers != 1 and not started_by_launcher():
            return launch(self.workers, sys.argv[1:])
        from torchreptile.cli.commands.evaluate import evaluate

        return evaluate(
            self.source,
            self.json,
            self.model,
            self.per_episode,
            split=self.split,
            episodes=self.episodes,
            shots=self.shots,
            way=self.way,
            checkpoint=self.checkpoint,
            dataset=self.dataset,
            data_root=self.data_root,
            data=self.data,
            table=self.table,
            queries=self.queries,
            eval_steps=self.eval_steps,
            eval_batch=self.eval_batch,
            inner_lr=self.inner_lr,
            finetune_steps=self.finetune_steps,
            seed=self.seed,
            device=self.device,
            execution=self.execution,
            precision=self.precision,
            task_chunk=self.task_chunk,
        )
