"""What happens when an inner mini-batch holds images that an earlier one held.

Nichol, Achiam, Schulman 2018, section 6.3 and its figure: first-order MAML whose last mini-batch comes from the same
images as the others (a shared tail) or from images of its own (a separate tail), and Reptile; mini-batches that cycle
through the task's images or are drawn with replacement; swept over inner steps, inner batch and outer step size. A
task has 100 images here, all that its characters have, so that cycling repeats the first one after four batches of 25.
The outer step size is swept where the shared tail has seen everything before, in mini-batches of all 100 images: were
its updates just too small, a larger step would make up for it.
"""

from __future__ import annotations

from typing import Any

from torchreptile.core.config import Config
from torchreptile.experiments.reproduce.experiment import Arm, Experiment
from torchreptile.experiments.reproduce.gradient_combinations import SETTINGS

# Nothing is drawn of the way, so four looks are enough to see that it goes well.
USUAL = SETTINGS.replace(train_shots=20, inner_steps=4, monitor_every=SETTINGS.outer.outer_steps // 4)
IMAGES = USUAL.task.way * USUAL.task.train_shots
TAIL = 5  # images per class kept apart: a mini-batch of 25

METHODS: dict[str, dict[str, Any]] = {
    "shared tail": {"algorithm": "foml"},
    "separate tail": {"algorithm": "foml", "foml_tail": TAIL},
    "Reptile": {"algorithm": "reptile"},
}
DRAWN = {False: "cycling", True: "replacement"}
# Each is swept with the others as usual, but for what ELSEWHERE says.
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
"""The line that the section is about."""
ALONE: dict[str, str] = {"outer_step_size": SHARED}
"""The sweeps of a single line."""


def usual(setting: str) -> float:
    """The value of a swept setting while another is swept."""
    return float(setting_of(USUAL, setting))


def where_held(swept: str) -> str:
    """Where all other swept settings are held while that one is swept, for people."""
    return ", ".join(f"{NAMES[name]} {value:g}" for name, value in held(swept).items() if name != swept)


def setting_of(config: Config, setting: str) -> float:
    """The value of a swept setting."""
    return float(getattr(config.outer if setting == "outer_step_size" else config.inner, setting))


def held(swept: str) -> dict[str, float]:
    """Where all swept settings are held while that one is swept, its own usual value among them."""
    return {name: usual(name) for name in SWEEPS} | ELSEWHERE.get(swept, {})


def belongs(config: Config, swept: str) -> bool:
    """Whether a training is a point of that sweep: all other swept settings are where they are held meanwhile."""
    return all(setting_of(config, name) == value for name, value in held(swept).items() if name != swept)


def points() -> dict[tuple[str, str], list[float]]:
    """For every sweep and line of the figure the values of the swept setting."""
    found = {}
    for swept, values in SWEEPS.items():
        for method, its in METHODS.items():
            # A separate tail leaves fewer images to make mini-batches of.
            largest = IMAGES - USUAL.task.way * its.get("foml_tail", 0)
            for line in (f"{method}, {drawn}" for drawn in DRAWN.values()):
                if ALONE.get(swept, line) == line:
                    found[swept, line] = [value for value in values if swept != "inner_batch" or value <= largest]
    return found


def _arms() -> list[Arm]:
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
