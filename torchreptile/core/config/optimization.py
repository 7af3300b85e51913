"""How learning goes: the inner loop on one task, and the outer steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchreptile.core.config.validation import at_least, check_types, positive, require

InnerOptimizer = Literal["adam", "sgd"]
InnerLoss = Literal["mean", "sum"]
InnerStatePolicy = Literal["share", "carry", "reset"]
OuterOptimizer = Literal["sgd", "adam"]


@dataclass(frozen=True)
class InnerConfig:
    """How the network is trained on one task."""

    inner_optimizer: InnerOptimizer = "adam"
    """adam (beta1 = 0, beta2 = 0.999, eps = 1e-8) or plain sgd."""
    inner_lr: float = 1e-3
    """Learning rate of the inner optimiser."""
    inner_loss: InnerLoss = "mean"
    """Of a mini-batch: the mean of its losses, or their sum, as in the original code, which sgd goes down faster by as
    much as there are images. adam always goes down the sum; that shows where mini-batches have another size than
    training's, in evaluations and a separate tail: its steps grow with them."""
    inner_batch: int = 10
    """Images or points in an inner mini-batch; 0 takes all of the task's in every step."""
    inner_steps: int = 5
    """Inner steps per task in training."""
    replacement: bool = False
    """Draw each inner mini-batch independently instead of cycling through the task's images."""
    inner_state: InnerStatePolicy = "share"
    """Adam's second moment: share (every task of a meta-batch starts from the same one, averaged afterwards),
    carry (task after task, as the original code; slow), reset (afresh for every task; another algorithm)."""

    def __post_init__(self) -> None:
        check_types(self)
        positive(inner_lr=self.inner_lr)
        require(
            self.inner_loss == "mean" or self.inner_optimizer == "sgd",
            "inner_loss is sum, which adam goes down anyway; leave it out, or take inner_optimizer sgd",
        )
        at_least(0, inner_batch=self.inner_batch)
        at_least(1, inner_steps=self.inner_steps)


@dataclass(frozen=True)
class OuterConfig:
    """How what is meta-learned is moved."""

    outer_steps: int = 100_000
    """Outer (meta) steps."""
    meta_batch: int = 5
    """Tasks per outer step."""
    outer_optimizer: OuterOptimizer = "sgd"
    """What moves by the meta-gradient: sgd (Reptile's step towards the mean of the tasks) or adam."""
    outer_clip: float = 0.0
    """Bound on the meta-gradient; 0 means none."""
    outer_clip_by: Literal["value", "norm"] = "value"
    """Whether the bound is on each number of the meta-gradient or on its length."""
    outer_step_size: float = 1.0
    """Outer step size at the start; Adam's learning rate."""
    outer_step_size_final: float = 0.0
    """Outer step size at the end; annealed linearly in between."""
    outer_halve_every: int = 0
    """Halve the outer step size after every so many outer steps, beside that; 0 means never."""
    max_minutes: float = 0.0
    """Stop after this many minutes of training; annealing then follows the time, so that the step size still
    ends at its final value. 0 means no limit."""

    def __post_init__(self) -> None:
        check_types(self)
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
        """The outer step size when the share ``done`` (0 to 1) of the training, or ``step`` outer steps, are done."""
        size = (1 - done) * self.outer_step_size + done * self.outer_step_size_final
        halvings = step // self.outer_halve_every if self.outer_halve_every else 0
        return size / 2.0**halvings
