"""Settings of evaluation and execution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchreptile.core.config.validation import LARGEST_SEED, MOST_STEPS, at_least, at_most, check_types

ExecutionName = Literal["auto", "loop", "grouped", "matmul", "vmap", "compiled", "native"]
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class EvalConfig:
    """Settings of evaluation: how accuracy, or the error on functions, is measured."""

    eval_steps: int = 50
    """Inner steps on the support set of an evaluation episode; 0 leaves the weights as they were meta-learned."""
    eval_batch: int = 5
    """Images in an inner mini-batch of an evaluation episode; 0 takes the entire support set in every step. The steps
    of adam grow with it."""
    finetune_steps: int = 0
    """matching, protonet: fine-tune the embedding by this many steps of size --inner-lr on the support set of an
    evaluation episode before labelling its queries; 0 means no fine-tuning."""
    eval_episodes: int = 10_000
    """Episodes in a final evaluation."""
    queries: int = 1
    """Query images per class, or query points, in an evaluation episode."""
    transductive: bool = False
    """Select the best checkpoint by transductive accuracy. Both accuracies are always measured and shown."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(0, eval_batch=self.eval_batch, eval_steps=self.eval_steps, finetune_steps=self.finetune_steps)
        at_most(MOST_STEPS, eval_steps=self.eval_steps, finetune_steps=self.finetune_steps)
        at_least(1, queries=self.queries)
        at_least(2, eval_episodes=self.eval_episodes)


@dataclass(frozen=True)
class RunConfig:
    """Settings of execution; apart from the seed and rounding, they do not affect the trained weights."""

    seed: int = 0
    """Seed of initialisation, tasks and mini-batches."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto takes a GPU if there is one."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed; all choices give the same numbers up to rounding. auto chooses by device,
    map size, network and amount of work, and reports why. native: the built-in networks on a CPU in fp32, in C++ that
    is compiled on first use."""
    precision: Precision = "fp32"
    """fp32, tf32 or bf16; the last two round the inputs of matrix products (weights and optimiser state stay in
    fp32)."""
    task_chunk: int = 0
    """Tasks computed at a time, to bound memory; 0 takes as many as fit."""
    unrolled_steps: int = 0
    """maml, anil, meta-sgd: inner steps whose graph is in memory at a time; earlier ones are recomputed in the backward
    pass. 0 takes as many as fit."""
    monitor_every: int = 0
    """Outer steps between measurements of accuracy on training and validation classes; 0 means 20 measurements per run,
    spaced by time where --max-minutes is set."""
    monitor_episodes: int = 100
    """Episodes per such measurement."""
    save_minutes: float = 1.0
    """Minutes between checkpoints."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(0, monitor_every=self.monitor_every, save_minutes=self.save_minutes, seed=self.seed)
        at_least(0, task_chunk=self.task_chunk, unrolled_steps=self.unrolled_steps)
        at_most(LARGEST_SEED, seed=self.seed)
        at_least(2, monitor_episodes=self.monitor_episodes)
