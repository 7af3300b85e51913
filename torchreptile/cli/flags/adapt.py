"""``reptile adapt``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from torchreptile.core.files import free


@dataclass(frozen=True)
class Adapt:
    """Learn classes from a few pictures of each, and label others: predictions with confidences, and a picture of
    them."""

    source: Annotated[Positional[Path], arg(metavar="WEIGHTS|RUN|CLASSIFIER")]
    """Shipped weights by name, a run folder, or a classifier that --save wrote, which needs no --support."""
    query: Path
    """What to label: a picture or a folder. Folders in it named after the classes tell the truth: accuracy is shown."""
    support: Path | None = None
    """What to learn from: a folder with a folder of pictures for every class, whose name is the label."""
    csv: Path | None = None
    """Also write the predictions to this file."""
    picture: Path | None = None
    """Picture of the support set and the labelled pictures; by default a new one under runs/."""
    save: Path | None = None
    """Keep the classifier in this .safetensors file (and a .json beside it)."""
    checkpoint: Literal["last", "best"] = "last"
    """Of a run folder: the last checkpoint, or the one with the best validation accuracy."""
    steps: int | None = None
    """Inner steps on the support set; by default as many as in the weights' own evaluation, in proportion more for more
    classes than they were trained for."""
    transductive: bool = False
    """Label all pictures together, so that what is said of one depends on the others."""
    seed: int = 0
    """Seed of the inner mini-batches."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    model: str = ""
    """The network of your own that was trained, such as net.py:Net: see reptile train --help."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Fit, label, print, draw."""
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
            transductive=self.transductive,
            seed=self.seed,
            device=self.device,
        )
