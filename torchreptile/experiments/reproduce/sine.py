"""Experiment: regression of sine waves, with fits before and after 32 inner steps and the error by inner step.

Nichol, Achiam, Schulman 2018, section 4: Reptile against joint training on all tasks (which learns the zero function),
MAML, and randomly initialised weights.
"""

from __future__ import annotations

from torchreptile.core.config.presets import preset
from torchreptile.experiments.reproduce.experiment import Arm, Experiment

REPTILE = preset("sine")
# Reptile with a single inner step is SGD on the points of all tasks together. Five tasks of 10 points give as many
# points per outer step as Reptile's one task with five inner steps of 10 points.
JOINT = REPTILE.replace(inner_steps=1, meta_batch=5, outer_step_size=1.0)
# As many outer steps as Reptile with five tasks each; MAML's published training has 70,000 steps of 25 tasks.
MAML = preset("sine", "maml").replace(meta_batch=5, outer_steps=REPTILE.outer.outer_steps)


WAVES = Experiment(
    name="sine",
    what="Sine waves from 10 points: fits and errors after 32 steps, against joint training",
    source="Nichol et al. 2018, section 4",
    kind="waves",
    arms=(
        Arm.of("reptile", "Reptile", REPTILE),
        Arm.of("maml", "MAML (meta-batch 5)", MAML),
        Arm.of("joint", "joint training", JOINT),
        Arm.of("fresh", "random initialisation", preset("sine", "scratch")),
    ),
    seeds=3,
    episodes=2000,
)
