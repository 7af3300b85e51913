"""What happens when an inner mini-batch holds images that an earlier one held.

Nichol, Achiam, Schulman 2018, section 6.3 and its figure: first-order MAML whose last mini-batch comes from the same
images as the others (a shared tail) or from images of its own (a separate tail), and Reptile; mini-batches that cycle
through the task's images or are drawn with replacement; swept over inner steps, inner batch and outer step size. A
task has 100 images here, all that a character has, so that cycling repeats the first one after four batches of 25.
"""

from __future__ import annotations

from typing import Any

from torchreptile.config import Config
from torchreptile.reproduce.combinations import SETTINGS
from torchreptile.reproduce.experiment import Arm, Experiment

USUAL = SETTINGS.replace(train_shots=20, inner_steps=4)
TAIL = 5  # images per class kept apart: a mini-batch of 25

METHODS: dict[str, dict[str, Any]] = {
    "shared tail": {"algorithm": "foml"},
    "separate tail": {"algorithm": "foml", "foml_tail": TAIL},
    "Reptile": {"algorithm": "reptile"},
}
# Each is swept with the others as usual.
SWEEPS: dict[str, tuple[float, ...]] = {
    "inner_steps": (2, 3, 4, 5, 6, 8),
    "inner_batch": (10, 25, 50, 75),
    "outer_step_size": (0.0625, 0.125, 0.25, 0.5, 1.0),
}
DRAWN = {False: "cycling", True: "replacement"}


def usual(setting: str) -> float:
    """The value of a swept setting while another is swept."""
    return float(setting_of(USUAL, setting))


def setting_of(config: Config, setting: str) -> float:
    """The value of a swept setting."""
    return float(getattr(config.outer if setting == "outer_step_size" else config.inner, setting))


def _arms() -> list[Arm]:
    points = dict.fromkeys(
        tuple(value if setting == swept else usual(swept) for swept in SWEEPS)
        for setting, values in SWEEPS.items()
        for value in values
    )
    arms = []
    for method, its in METHODS.items():
        for replacement, drawn in DRAWN.items():
            for steps, batch, size in points:
                config = USUAL.replace(
                    **its, replacement=replacement, inner_steps=int(steps), inner_batch=int(batch), outer_step_size=size
                )
                name = f"{method.lower().replace(' ', '-')}-{drawn}-{steps:g}x{batch:g}-{size:g}"
                arms.append(Arm.of(name, f"{method}, {drawn}", config))
    return arms


OVERLAP = Experiment(
    name="minibatch-overlap",
    what="Omniglot, 5-shot 5-way: mini-batches that overlap, in first-order MAML and in Reptile",
    source="Nichol et al. 2018, section 6.3",
    kind="overlap",
    arms=tuple(_arms()),
    episodes=1000,
)
