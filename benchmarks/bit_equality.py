"""Bit equality of trainings across executions, numbers of threads, processes, and processor settings.

``python benchmarks/bit_equality.py`` trains small 3-way runs in several ways under several settings of oneDNN and ATen,
each in a separate process, and prints for each execution which of them agree to the last bit: Reptile on glyphs
(28 x 28) and on coloured noise (84 x 84), and second-order MAML on glyphs. With one thread, a training in this process
is compared with one in a job's process and with one that was stopped and resumed there; with two threads, an
uninterrupted training with one that was stopped and resumed; and one thread with two. ``--settings N`` takes the
first N settings only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from torchreptile.core.config import Config
from torchreptile.core.config.presets import preset
from torchreptile.core.errors import ConfigError, first_line
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
GLYPHS = {"dataset": "glyphs", "split_scheme": "default"}
WORKLOADS = ("glyphs", "noise 84x84", "maml")
EXECUTIONS = ("loop", "grouped", "matmul", "vmap", "compiled", "native")
HERE, JOB, STOPPED = "in this process", "in a job", "resumed in a job"
TWO, TWO_STOPPED = "two threads", "resumed with two threads"
# What is compared with what: a promise but for the last, which rounds sums of other parts.
COMPARED = {JOB: HERE, STOPPED: HERE, TWO_STOPPED: TWO, TWO: HERE}


class StopAt(Callback):
    """A callback that stops a training after two outer steps."""

    def on_step(self, step: int, done: float, seconds: float) -> None:
        """Send the signal that stops a training."""
        if step == 2:
            signal.raise_signal(signal.SIGTERM)


def settings(workload: str, execution: str, pictures: Path) -> Config:
    """Return a small training; Adam's first steps amplify rounding to the size of the learning rate."""
    small = {
        "way": 3, "train_shots": 5, "inner_steps": 3, "inner_batch": 6, "meta_batch": 3, "outer_steps": 5,
        "monitor_episodes": 2, "device": "cpu", "execution": execution,
    }  # fmt: skip
    if workload == "maml":
        plain = {"algorithm": "maml", "inner_optimizer": "sgd", "inner_lr": 0.4, "inner_batch": 0, "shots": 1}
        return preset("glyphs-1shot-5way", "maml").replace(**small | plain | {"train_shots": 3, "eval_steps": 3})
    images = {"dataset": "folder", "data": str(pictures), "image_size": 84} if "84" in workload else GLYPHS
    return Config().replace(**small, **images)


def draw_pictures(folder: Path) -> Path:
    """Write 12 classes of 20 pictures of coloured noise, 84 x 84; return the folder."""
    generator = torch.Generator().manual_seed(0)
    for number in range(12):
        (folder / f"class{number:02}").mkdir(parents=True)
        for image in range(20):
            pixels = torch.randint(0, 256, (84, 84, 3), dtype=torch.uint8, generator=generator)
            Image.fromarray(pixels.numpy()).save(folder / f"class{number:02}" / f"{image:02}.png")
    return folder


def digest(run: Path) -> str:
    """Hash all meta-learned tensors of a run."""
    tensors = load_checkpoint(run / "last.pt").state.tensors()
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()


def digests(config: Config, folder: Path) -> dict[str, str]:
    """Train in every way; return the hashes by name, or the reason why this execution cannot be used, by ``""``."""
    torch.set_num_threads(1)
    try:
        train_or_resume(config, RunFolder(folder / HERE), [])
    except ConfigError as error:
        return {"": first_line(error)}
    train_in_subprocess(config, RunFolder(folder / JOB), quiet=True)
    train_or_resume(config, RunFolder(folder / STOPPED), [StopAt()])
    train_in_subprocess(config, RunFolder(folder / STOPPED), quiet=True)
    torch.set_num_threads(2)
    train_or_resume(config, RunFolder(folder / TWO), [])
    train_or_resume(config, RunFolder(folder / TWO_STOPPED), [StopAt()])
    resume(folder / TWO_STOPPED, [])
    return {name: digest(folder / name) for name in (HERE, JOB, STOPPED, TWO, TWO_STOPPED)}


def measure(workload: str) -> None:
    """Print the hashes of a workload, by execution, as one line of JSON."""
    with tempfile.TemporaryDirectory() as place:
        pictures = draw_pictures(Path(place) / "pictures") if "84" in workload else Path(place)
        configs = {name: settings(workload, name, pictures) for name in EXECUTIONS}
        print(json.dumps({name: digests(config, Path(place) / name) for name, config in configs.items()}))


def cell(bits: dict[str, str]) -> str:
    """Return what the table says of one execution."""
    if "" in bits:
        return "not possible"
    differing = [f"{name} from {other}" for name, other in COMPARED.items() if bits[name] != bits[other]]
    return f"differs: {', '.join(differing)}" if differing else "all equal"


def main(count: int, workloads: Sequence[str]) -> None:
    """Print a table of the ways that differ, under the first ``count`` settings."""
    print(f"| settings | workload | {' | '.join(EXECUTIONS)} |\n|---|---{'|---' * len(EXECUTIONS)}|", flush=True)
    for setting in SETTINGS[:count]:
        named = ", ".join(f"{name}={value}" for name, value in setting.items()) or "none"
        for workload in workloads:
            command = [sys.executable, __file__, "--measure", workload]
            done = subprocess.run(command, env=os.environ | setting, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{named}, {workload}: {done.stderr}")
            found: dict[str, dict[str, str]] = json.loads(done.stdout.splitlines()[-1])
            print(f"| {named} | {workload} | {' | '.join(map(cell, found.values()))} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="how many of the settings to try")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--measure", choices=WORKLOADS, help="print the hashes of one workload under this environment")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
    else:
        main(arguments.settings, arguments.workloads)
