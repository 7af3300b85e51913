"""Flags of ``reptile export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Export:
    """Export a classifier as a program that runs without this package, and check that both predict the same."""

    classifier: Annotated[Positional[Path], arg(metavar="CLASSIFIER")]
    """A .safetensors file written by ``reptile adapt --save`` or FewShotClassifier.save."""
    to: Path
    """File to write: .onnx for ONNX (pip install 'torchreptile[onnx]'), .pt2 for torch.export."""
    model: str = ""
    """The custom network that was trained, such as net.py:Net: see reptile train --help."""

    def run(self) -> int:
        """Export the classifier and print the program's inputs and outputs; return the exit code."""
        from torchreptile.cli.commands.export import export

        return export(self.classifier, self.to, self.model)
