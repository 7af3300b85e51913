"""MANN's row: Santoro et al. 2016, arXiv 1605.06065."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchreptile.core.config.algorithm import AlgorithmRow, AlgorithmSettings, Published
from torchreptile.core.config.config import Config
from torchreptile.core.config.validation import at_least, at_most, require


@dataclass(frozen=True)
class MANNSettings(AlgorithmSettings):
    """Settings of the network with an external memory."""

    mann_units: int = 200
    """mann: units of the LSTM controller."""
    mann_slots: int = 128
    """mann: rows of the memory."""
    mann_width: int = 40
    """mann: numbers in a row of the memory."""
    mann_heads: int = 4
    """mann: read heads, which are also the least used rows that may be written."""
    mann_decay: float = 0.99
    """mann: what remains of a row's usage from one image to the next."""
    mann_separate_write: bool = False
    """mann: write separate vectors to the memory, as public implementations do; the paper writes the keys."""
    mann_read_first: bool = False
    """mann: compare the keys with the memory as it was before the step's writing, as public implementations do."""
    mann_replacement: bool = False
    """mann: draw the images of a training episode with replacement, so that classes appear unequally often."""
    mann_jitter: float = 0.0
    """mann: how far training images are moved and turned at random: 1 is up to a tenth of their width and 11 degrees,
    0 not at all."""

    def check_values(self) -> None:
        """Refuse sizes below 1, a decay outside 0 to 1, and fewer slots than heads."""
        at_least(1, mann_units=self.mann_units, mann_width=self.mann_width, mann_heads=self.mann_heads)
        at_least(0, mann_decay=self.mann_decay, mann_jitter=self.mann_jitter)
        at_most(1, mann_decay=self.mann_decay)
        require(
            self.mann_slots >= self.mann_heads,
            f"mann_slots is {self.mann_slots}; it must be at least mann_heads ({self.mann_heads})",
        )


def image_settings(config: Config) -> dict[str, Any]:
    """Return settings for images: 100,000 steps on 16 episodes of 10 images per class, shifted and rotated at random.

    Santoro et al. 2016. The optimiser is Adam at 1e-3, as in the public implementations that reach the paper's numbers;
    the paper used RMSProp.
    """
    return {
        "train_shots": 10,
        "mann_jitter": 1.0,
        "meta_batch": 16,
        "outer_steps": 100_000,
        "outer_optimizer": "adam",
        "outer_step_size": 1e-3,
        "outer_step_size_final": 1e-4,
        "outer_clip": 10.0,
        "outer_clip_by": "norm",
    }


ROW = AlgorithmRow(
    name="mann",
    title="MANN",
    implementation="torchreptile.algorithms.mann:MANN",
    settings=MANNSettings,
    trains_by_steps=False,
    adapts_by_steps=False,
    transductive=False,
    own_inversion=True,
    change_image_settings=image_settings,
    published={
        ("", "omniglot", 5, 1, False): Published(82.8, None, "Santoro et al. 2016, table 1, 2nd presentation"),
        ("", "omniglot", 5, 5, False): Published(94.9, None, "Santoro et al. 2016, table 1, 5th presentation"),
    },
    # The tables of the field quote the 2nd and 5th presentation of a class as 1-shot and 5-shot.
    quoted={1: "presentation 2", 5: "presentation 5"},
    extra_published={
        ("omniglot", 5, f"presentation {number}"): Published(accuracy, None, "Santoro et al. 2016, table 1")
        for number, accuracy in {1: 36.4, 2: 82.8, 3: 91.0, 4: 92.6, 5: 94.9, 10: 98.1}.items()
    },
)
