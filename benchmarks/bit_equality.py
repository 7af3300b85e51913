"""Bit equality of trainings across executions, numbers of threads, processes, and processor settings.

``python benchmarks/bit_equality.py`` trains a small 3-way run on glyphs in several ways under several settings of
oneDNN and ATen, each in a separate process, and prints for each execution which of them agree to the last bit.
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
from torchreptile.training.callbacks import Callback
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.in_subprocess import train_in_subprocess, train_or_resume
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
HERE, JOB, STOPPED, TWO = "in this process", "in a job", "stopped, resumed in a job", "two threads"


class StopAt(Callback):
    """A callback that stops a training after two outer steps."""

    def on_step(self, step: int, done: float, seconds: float) -> None:
        """Send the signal that stops a training."""
        if step == 2:
            signal.raise_signal(signal.SIGTERM)


def settings(execution: str) -> Config:
    """Return a small training; Adam's first steps amplify rounding to the size of the learning rate."""
    return Config().replace(
        dataset="glyphs", split_scheme="default", way=3, train_shots=5, inner_steps=3, inner_batch=6, meta_batch=3,
        outer_steps=5, monitor_episodes=2, device="cpu", execution=execution,
    )  # fmt: skip


def digest(run: Path) -> str:
    """Hash all meta-learned tensors of a run."""
    tensors = load_checkpoint(run / "last.pt").state.tensors()
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def digests(execution: str, folder: Path) -> dict[str, str]:
    """Train in every way; return the hashes by name."""
    config = settings(execution)
    torch.set_num_threads(1)
    train_or_resume(config, RunFolder(folder / HERE))
    train_in_subprocess(config, RunFolder(folder / JOB), quiet=True)
    train_or_resume(config, RunFolder(folder / STOPPED), [StopAt()])
    train_in_subprocess(config, RunFolder(folder / STOPPED), quiet=True)
    torch.set_num_threads(2)
    train_or_resume(config, RunFolder(folder / TWO), [StopAt()])
    resume(folder / TWO)
    return {name: digest(folder / name) for name in (HERE, JOB, STOPPED, TWO)}


def main() -> None:
    """Print a table of the ways that differ from training in one process under the same settings."""
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
