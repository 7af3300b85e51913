"""Experiment: inner mini-batches that repeat images of earlier ones.

Nichol, Achiam, Schulman 2018, section 6.3 and its figure: Reptile, and first-order MAML whose last mini-batch is drawn
from the same images as the others (shared tail) or from images reserved for it (separate tail). Mini-batches cycle
through the task's images or are drawn with replacement. Inner steps, inner batch and outer step size are swept. A task
has 100 images, all that its characters have, so cycling starts to repeat images after four mini-batches of 25. The
outer step size is swept with mini-batches of all 100 images, where the shared tail repeats every image: if its updates
were merely too small, a larger step size would make up for it.
"""

from __future__ import annotations

from typing import Any

from torchreptile.core.config import Config
from torchreptile.experiments.reproduce.experiment import Arm, Experiment
from torchreptile.experiments.reproduce.gradient_combinations import SETTINGS

# The figure shows only final accuracies, so a training is monitored no more than four times.
USUAL = SETTINGS.replace(train_shots=20, inner_steps=4, monitor_every=SETTINGS.outer.outer_steps // 4)
IMAGES = USUAL.task.way * USUAL.task.train_shots
TAIL = 5  # images per class reserved for the separate tail: a mini-batch of 25

METHODS: dict[str, dict[str, Any]] = {
    "shared tail": {"algorithm": "foml"},
    "separate tail": {"algorithm": "foml", "foml_tail": TAIL},
    "Reptile": {"algorithm": "reptile"},
}
DRAWN = {False: "cycling", True: "replacement"}
# Each setting is swept with the others at their usual values, except for those in ELSEWHERE.
SWEEPS: dict[str, tuple[float, ...]] = {
    "inner_steps": (2, 3, 4, 5, 6, 8),
    "inner_batch": (10, 25, 50, 75, IMAGES),
    "outer_step_size": (0.0625, 0.125, 0.25, 0.5, 1.0),
}
NAMES = {
    "inner_steps": "inner steps",
    "inner_batch": "images in an inner mini-batch",
    "outer_step_size": "outer step size",
}
ELSEWHERE: dict[str, dict[str, float]] = {"outer_step_size": {"inner_batch": IMAGES}}
SHARED = "shared tail, cycling"
"""The line of the figure that the paper's section is about."""
ALONE: dict[str, str] = {"outer_step_size": SHARED}
"""Sweeps that have a single line in the figure."""


def usual(setting: str) -> float:
    """Return the value a swept setting has while another one is swept."""
    return float(setting_of(USUAL, setting))


def where_held(swept: str) -> str:
    """Describe the values at which all other swept settings are held while ``swept`` is swept."""
    return ", ".join(f"{NAMES[name]} {value:g}" for name, value in held(swept).items() if name != swept)


def setting_of(config: Config, setting: str) -> float:
    """Return the value of a swept setting in ``config``."""
    return float(getattr(config.outer if setting == "outer_step_size" else config.inner, setting))


def held(swept: str) -> dict[str, float]:
    """Return the values at which settings are held while ``swept`` is swept, including its own usual value."""
    return {name: usual(name) for name in SWEEPS} | ELSEWHERE.get(swept, {})


def belongs(config: Config, swept: str) -> bool:
    """Return whether a training is a point of the sweep, with all other swept settings at their held values."""
    return all(setting_of(config, name) == value for name, value in held(swept).items() if name != swept)


def points() -> dict[tuple[str, str], list[float]]:
    """Return the values of the swept setting, by (sweep, line of the figure)."""
    found = {}
    for swept, values in SWEEPS.items():
        for method, settings in METHODS.items():
            # A separate tail leaves fewer images for the other mini-batches.
            largest = IMAGES - USUAL.task.way * settings.get("foml_tail", 0)
            for line in (f"{method}, {drawn}" for drawn in DRAWN.values()):
                if ALONE.get(swept, line) == line:
                    found[swept, line] = [value for value in values if swept != "inner_batch" or value <= largest]
    return found


def _arms() -> list[Arm]:
    """Return one training per point of the figure; points that sweeps share are trained once."""
    arms: dict[str, Arm] = {}
    for (swept, line), values in points().items():
        method, _, drawn = line.partition(", ")
        for value in values:
            steps, batch, size = (held(swept) | {swept: value}).values()
            config = USUAL.replace(
                **METHODS[method],
                replacement=drawn == DRAWN[True],
                inner_steps=int(steps),
                inner_batch=int(batch),
                outer_step_size=size,
            )
            name = f"{method.lower().replace(' ', '-')}-{drawn}-{steps:g}x{batch:g}-{size:g}"
            arms.setdefault(name, Arm.of(name, line, config))
    return list(arms.values())


OVERLAP = Experiment(
    name="minibatch-overlap",
    what="Omniglot, 5-shot 5-way: mini-batches that overlap, in first-order MAML and in Reptile",
    source="Nichol et al. 2018, section 6.3",
    kind="overlap",
    arms=tuple(_arms()),
    episodes=1000,
)
