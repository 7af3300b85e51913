"""Which trainings come to the same bits: by execution, number of threads, process, and processor settings.

``python benchmarks/bit_equality.py`` trains a small 3-way run of glyphs in several ways under several settings of
oneDNN and ATen, each in a process of its own, and prints for each execution which of them agree to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from torchreptile.core.config import Config
from torchreptile.training.callbacks import Silent
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.in_subprocess import train_in_subprocess, train_or_go_on
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import resume

SETTINGS: list[dict[str, str]] = [
    {},
    {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"ATEN_CPU_CAPABILITY": "default"},
    {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
]
EXECUTIONS = ("loop", "grouped", "matmul", "native")
HERE, JOB, STOPPED, TWO = "in this process", "in a job", "stopped, gone on in a job", "two threads"


class StopAt(Silent):
    """Stop a training after two of its outer steps."""

    def stepped(self, step: int, done: float, seconds: float) -> None:
        """Ask for it, as Ctrl-C does."""
        if step == 2:
            signal.raise_signal(signal.SIGTERM)


def settings(execution: str) -> Config:
    """Adam's first steps blow rounding up to the learning rate, so that any difference shows."""
    return Config().replace(
        dataset="glyphs", split_scheme="default", way=3, train_shots=5, inner_steps=3, inner_batch=6, meta_batch=3,
        outer_steps=5, monitor_episodes=2, device="cpu", execution=execution,
    )  # fmt: skip


def digest(run: Path) -> str:
    """Of everything that is meta-learned."""
    tensors = load_checkpoint(run / "last.pt").state.tensors()
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def digests(execution: str, folder: Path) -> dict[str, str]:
    """The bits that every way of training comes to."""
    config = settings(execution)
    torch.set_num_threads(1)
    train_or_go_on(config, RunFolder(folder / HERE), Silent())
    train_in_subprocess(config, RunFolder(folder / JOB), quiet=True)
    train_or_go_on(config, RunFolder(folder / STOPPED), StopAt())
    train_in_subprocess(config, RunFolder(folder / STOPPED), quiet=True)
    torch.set_num_threads(2)
    train_or_go_on(config, RunFolder(folder / TWO), StopAt())
    resume(folder / TWO)
    return {name: digest(folder / name) for name in (HERE, JOB, STOPPED, TWO)}


def main() -> None:
    """Print a table: the ways that agree with one training in this process under the same settings."""
    print(f"| settings | {' | '.join(EXECUTIONS)} |\n|---{'|---' * len(EXECUTIONS)}|", flush=True)
    for setting in SETTINGS:
        done = subprocess.run(
            [sys.executable, __file__, "measure"], env=os.environ | setting, capture_output=True, text=True, check=True
        )
        found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
        cells = [
            ", ".join(name for name in (JOB, STOPPED, TWO) if bits[name] != bits[HERE]) or "all equal"
            for bits in found.values()
        ]
        named = ", ".join(f"{name}={value}" for name, value in setting.items()) or "none"
        print(
            f"| {named} | " + " | ".join(c if c == "all equal" else f"differs: {c}" for c in cells) + " |", flush=True
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps({name: digests(name, Path(place) / name) for name in EXECUTIONS}))
    else:
        main()
