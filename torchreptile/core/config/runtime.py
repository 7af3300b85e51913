"""How a run is measured and carried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchreptile.core.config.validation import LARGEST_SEED, at_least, at_most, check_types

ExecutionName = Literal["auto", "loop", "grouped", "matmul", "vmap", "compiled", "native"]
Precision = Literal["fp32", "tf32", "bf16"]


@dataclass(frozen=True)
class EvalConfig:
    """How accuracy, or the error of functions, is measured."""

    eval_steps: int = 50
    """Inner steps on the support set of an evaluation episode; 0 leaves the weights as they were meta-learned."""
    eval_batch: int = 5
    """Images in an inner mini-batch of an evaluation episode; 0 takes all of its support set in every step. Steps of
    adam grow with it."""
    finetune_steps: int = 0
    """matching, protonet: train the embedding on by so many steps of size --inner-lr on the support set of an
    evaluation episode before its queries are labelled; 0 means no fine-tuning."""
    eval_episodes: int = 10_000
    """Episodes of a final evaluation."""
    queries: int = 1
    """Query images per class, or points, in an evaluation episode."""
    transductive: bool = False
    """Select the best checkpoint by transductive accuracy. Both accuracies are always measured and shown."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(0, eval_batch=self.eval_batch, eval_steps=self.eval_steps, finetune_steps=self.finetune_steps)
        at_least(1, queries=self.queries)
        at_least(2, eval_episodes=self.eval_episodes)


@dataclass(frozen=True)
class RunConfig:
    """How the run is carried out; nothing here changes what is learned, but for the seed and rounding."""

    seed: int = 0
    """Seed of initialisation, tasks and mini-batches."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto takes a GPU if there is one."""
    execution: ExecutionName = "auto"
    """How a meta-batch of tasks is computed; all ways give the same numbers up to rounding. auto chooses by device,
    map size, network and amount of work, and says why. native: the built-in networks on a CPU in fp32, by C++ that is
    compiled on first use."""
    precision: Precision = "fp32"
    """fp32; tf32 and bf16 round what goes into matrix products (weights and optimiser state stay in fp32)."""
    task_chunk: int = 0
    """Tasks computed at a time, to bound memory; 0 takes as many as fit."""
    unrolled_steps: int = 0
    """maml, anil, meta-sgd: inner steps whose graph is in memory at a time; those before are computed again on the way
    back. 0 takes as many as fit."""
    monitor_every: int = 0
    """Outer steps between measurements of accuracy on training and validation classes; 0 means 20 per run, by time
    where --max-minutes limits it."""
    monitor_episodes: int = 100
    """Episodes of each such measurement."""
    save_minutes: float = 1.0
    """Minutes between checkpoints."""

    def __post_init__(self) -> None:
        check_types(self)
        at_least(0, monitor_every=self.monitor_every, save_minutes=self.save_minutes, seed=self.seed)
        at_least(0, task_chunk=self.task_chunk, unrolled_steps=self.unrolled_steps)
        at_most(LARGEST_SEED, seed=self.seed)
        at_least(2, monitor_episodes=self.monitor_episodes)
