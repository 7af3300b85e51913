"""Flags of ``reptile bench``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torchreptile.core.config import Config, Precision


@dataclass(frozen=True)
class Bench:
    """Measure how fast this machine meta-trains: every execution against a naive loop."""

    network: Literal["omniglot", "mini-imagenet"] = "omniglot"
    """Which of the paper's two networks, with random images of its input size."""
    way: int = 5
    """Classes in a task."""
    train_shots: int = 10
    """Images per class in a task."""
    meta_batch: int = 5
    """Tasks per outer step."""
    inner_batch: int = 10
    """Images in an inner mini-batch."""
    inner_steps: int = 5
    """Inner steps per task."""
    executions: tuple[str, ...] = ("naive", "loop", "grouped", "matmul", "vmap", "compiled", "native")
    """Executions to compare; naive is deepcopy and torch.optim.Adam, one task after another."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    """Precisions of each execution; naive runs only in fp32."""
    rounds: int = 20
    """Timed outer steps per execution; the median is reported."""
    memory: bool = True
    """Whether peak memory is measured too, each execution in a separate process."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. On a GPU every execution runs eagerly and as a CUDA graph."""
    out: Path = Path("bench")
    """Folder for NETWORK.json and NETWORK.png."""

    def run(self) -> int:
        """Run the benchmark, print and draw the timings; return the exit code."""
        from torchreptile.cli.commands.bench import bench

        work = Config().replace(
            way=self.way,
            train_shots=self.train_shots,
            meta_batch=self.meta_batch,
            inner_batch=self.inner_batch,
            inner_steps=self.inner_steps,
        )
        return bench(
            work, self.network, self.executions, self.precisions, self.rounds, self.memory, self.device, self.out
        )
