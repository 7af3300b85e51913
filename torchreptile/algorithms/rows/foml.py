"""FOML's row: first-order MAML as in the Reptile paper's code. No accuracy was published for it."""

from __future__ import annotations

from dataclasses import dataclass

from torchreptile.core.config.algorithm import AlgorithmRow, AlgorithmSettings
from torchreptile.core.config.config import Config
from torchreptile.core.config.validation import at_least, require


@dataclass(frozen=True)
class FOMLSettings(AlgorithmSettings):
    """Settings of first-order MAML in Reptile's setting."""

    foml_tail: int = 0
    """foml: images per class reserved for the last inner step; 0 means a shared tail."""

    def check_values(self) -> None:
        """Refuse a negative tail."""
        at_least(0, foml_tail=self.foml_tail)

    def check_with(self, config: Config) -> None:
        """Refuse a tail that leaves no images, or no step, for the inner loop."""
        images = config.task.images_per_class
        if self.foml_tail:
            require(
                self.foml_tail < images,
                f"foml_tail is {self.foml_tail}; it must be smaller than train_shots ({images})",
            )
            require(config.inner.inner_steps > 1, "foml_tail needs inner_steps of at least 2")

    @property
    def reserved_images(self) -> int:
        """Return the images per class of the separate tail."""
        return self.foml_tail


ROW = AlgorithmRow(
    name="foml",
    title="First-order MAML in Reptile's frame",
    implementation="torchreptile.algorithms.foml:FOML",
    settings=FOMLSettings,
    plain_steps=True,
    fits_functions=True,
)
