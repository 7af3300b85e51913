"""Settings of the optimisation: the inner loop on one task, and the outer steps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from torchreptile.core.config.validation import MOST_STEPS, at_least, at_most, check_types, positive, require

InnerOptimizer = Literal["adam", "sgd"]
InnerLoss = Literal["mean", "sum"]
InnerStatePolicy = Literal["share", "carry", "reset"]
OuterOptimizer = Literal["sgd", "adam"]


@dataclass(frozen=True)
class InnerConfig:
    """Settings of the inner loop, which trains the network on one task."""

    inner_optimizer: InnerOptimizer = "adam"
    """adam (beta1 = 0, beta2 = 0.999, eps = 1e-8) or plain sgd."""
    inner_lr: float = 1e-3
    """Learning rate of the inner optimiser."""
    inner_loss: InnerLoss = "mean"
    """Loss of a mini-batch: mean, or sum as in the original code, with which a step of sgd grows with the number of
    images. adam always minimises the sum, so its steps grow with the mini-batch; this matters where mini-batches differ
    in size from those in training, as in evaluation and in the separate tail of foml."""
    inner_batch: int = 10
    """Images or points in an inner mini-batch; 0 takes all of the task's examples in every step."""
    inner_steps: int = 5
    """Inner steps per task in training."""
    replacement: bool = False
    """Draw each inner mini-batch independently instead of cycling through the task's images."""
    inner_state: InnerStatePolicy = "share"
    """Adam's second moment: share (all tasks of a meta-batch start from the same one, and leave the one that they would
    leave in sequence, averaged over all orders), carry (from one task to the next, as in the original code; slow) or
    reset (to zero for every task, which is a different algorithm)."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(inner_lr=self.inner_lr)
        require(
            self.inner_loss == "mean" or self.inner_optimizer == "sgd",
            "inner_loss is sum, which adam minimises anyway; leave it out, or use inner_optimizer sgd",
        )
        at_least(0, inner_batch=self.inner_batch)
        at_least(1, inner_steps=self.inner_steps)
        at_most(MOST_STEPS, inner_steps=self.inner_steps)


@dataclass(frozen=True)
class OuterConfig:
    """Settings of the outer loop, which moves the meta-learned weights."""

    weights: str = ""
    """Start from these weights instead of freshly drawn ones: a run folder, a weights file, or the name of shipped
    weights. Also the way to continue a finished run, with a new schedule."""
    outer_steps: int = 100_000
    """Outer (meta) steps."""
    meta_batch: int = 5
    """Tasks per outer step."""
    outer_optimizer: OuterOptimizer = "sgd"
    """Optimiser that applies the meta-gradient: sgd (Reptile's step towards the mean of the tasks) or adam."""
    outer_clip: float = 0.0
    """Bound on the meta-gradient; 0 means none."""
    outer_clip_by: Literal["value", "norm"] = "value"
    """Apply the bound to every value of the meta-gradient, or to its norm."""
    outer_step_size: float = 1.0
    """Outer step size at the start; with adam, its learning rate."""
    outer_step_size_final: float = 0.0
    """Outer step size at the end; annealed linearly in between."""
    outer_halve_every: int = 0
    """Also halve the outer step size every so many outer steps; 0 means never."""
    max_minutes: float = 0.0
    """Stop after this many minutes of training; annealing then follows the time, so that the step size still
    reaches its final value. 0 means no limit."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.weights and os.path.exists(self.weights):  # as a run may be resumed from another directory
            object.__setattr__(self, "weights", os.path.abspath(self.weights))
        at_least(1, outer_steps=self.outer_steps, meta_batch=self.meta_batch)
        at_least(
            0,
            max_minutes=self.max_minutes,
            outer_clip=self.outer_clip,
            outer_step_size=self.outer_step_size,
            outer_step_size_final=self.outer_step_size_final,
            outer_halve_every=self.outer_halve_every,
        )

    def step_size_at(self, done: float, step: int = 0) -> float:
        """Return the outer step size at a point of the training.

        Args:
            done: share of the training that is done, from 0 to 1.
            step: outer steps that are done.
        """
        size = (1 - done) * self.outer_step_size + done * self.outer_step_size_final
        halvings = step // self.outer_halve_every if self.outer_halve_every else 0
        return size / 2.0**halvings
