"""Flags of ``reptile adapt``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from torchreptile.core.files import free


@dataclass(frozen=True)
class Adapt:
    """Learn classes from a few pictures of each and label other pictures; print predictions with confidences, and draw
    them."""

    source: Annotated[Positional[Path], arg(metavar="WEIGHTS|RUN|CLASSIFIER")]
    """Name of shipped weights, a run folder, or a classifier written by --save, which needs no --support."""
    query: Path
    """Pictures to label: a file or a folder. If it has subfolders named after the classes, accuracy is shown too."""
    support: Path | None = None
    """Pictures to learn from: a folder with one subfolder per class, named after the class."""
    csv: Path | None = None
    """Also write the predictions to this file."""
    picture: Path | None = None
    """File to draw the support set and the labelled pictures to; by default a new one under runs/."""
    save: Path | None = None
    """Save the classifier to this .safetensors file (and a .json file next to it)."""
    checkpoint: Literal["last", "best"] = "last"
    """For a run folder: the last checkpoint, or the one with the best validation accuracy."""
    steps: int | None = None
    """Inner steps on the support set; by default the number used to evaluate the weights, increased in proportion for
    more classes than they were trained for."""
    unbalanced: bool = False
    """Draw the inner mini-batches from all pictures alike; by default every class is drawn equally often, however many
    pictures it has."""
    transductive: bool = False
    """Label all pictures in one batch, so that the label of one depends on the others."""
    reject: float | None = None
    """Label pictures that show none of the classes "none of these", at the price of about this share of the others,
    such as 0.05. The threshold is calibrated on the support set; see docs/classify.md."""
    seed: int = 0
    """Seed of the inner mini-batches."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    model: str = ""
    """The custom network that was trained, such as net.py:Net: see reptile train --help."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Adapt to the support set, label the queries, print and draw them; return the exit code."""
        from torchreptile.cli.commands.adapt import AdaptFiles, adapt

        return adapt(
            self.source,
            self.support,
            self.query,
            AdaptFiles(self.csv, self.picture or free(Path("runs") / "predictions.png"), self.save),
            self.model,
            self.checkpoint,
            self.json,
            steps=self.steps,
            balanced=not self.unbalanced,
            transductive=self.transductive,
            reject=self.reject,
            seed=self.seed,
            device=self.device,
        )
