"""``reptile export``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Export:
    """Write a classifier as a program that needs none of this package, and hold it against the classifier."""

    classifier: Annotated[Positional[Path], arg(metavar="CLASSIFIER")]
    """A .safetensors file that ``reptile adapt --save`` or FewShotClassifier.save wrote."""
    to: Path
    """The file to write: .onnx for ONNX (pip install 'torchreptile[onnx]'), .pt2 for torch.export."""
    model: str = ""
    """The network of your own that was trained, such as net.py:Net: see reptile train --help."""

    def run(self) -> int:
        """Export, and say what the program takes."""
        from torchreptile.cli.commands.export import export

        return export(self.classifier, self.to, self.model)
