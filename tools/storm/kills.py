"""Commands that are killed at a random moment, given again, and compared with one that nobody disturbed."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from counts import Counts
from subjects import TINY, pictures

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
LONGEST = 300.0  # seconds that a command may take
FIRST = ["torchreptile.cli.parser", "torchreptile.cli.commands.train", "torchreptile.cli.commands.evaluate"]
SMALL = [
    "train",
    "--dataset",
    "glyphs",
    *TINY,
    "--outer-steps",
    "12",
    "--monitor-every",
    "4",
    "--save-minutes",
    "0.0001",
]


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        name: what it is.
        words: its words, to be run in a folder of its own.
        resume: its words once it was killed; they follow from what the folder holds.
        result: what must be the same in the end, as text.
        prepare: puts into the folder what the command needs.
        own_process: start it as a process of its own, which imports torch; otherwise it is forked from one that has.
    """

    name: str
    words: list[str]
    resume: Callable[[Path], list[str]]
    result: Callable[[Path], str]
    prepare: Callable[[Path], None] = lambda folder: None
    own_process: bool = False


def trained(folder: Path) -> str:
    """Return a fingerprint of what a training left in ``folder``/run: its checkpoint and metrics, without the time."""
    saved = torch.load(folder / "run" / "last.pt", weights_only=True)
    for timed in ("seconds", "metrics_bytes", "metrics_checksum"):
        saved.pop(timed, None)
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    found = hashlib.sha256(json.dumps([{k: v for k, v in line.items() if k != "seconds"} for line in lines]).encode())
    _add(found, saved)
    return found.hexdigest()


def _add(found: object, value: object) -> None:
    """Add tensors and plain values to a fingerprint, bit by bit."""
    if isinstance(value, dict):
        for name in sorted(value):
            found.update(name.encode())
            _add(found, value[name])
    elif isinstance(value, torch.Tensor):
        found.update(str(value.dtype).encode() + value.numpy().tobytes())
    else:
        found.update(repr(value).encode())


def evaluated(folder: Path) -> str:
    """Return the results of the evaluations in ``folder``/run."""
    files = sorted((folder / "run").glob("eval-*.json"))
    return json.dumps([json.loads(file.read_text())["result"] for file in files])


def reproduced(folder: Path) -> str:
    """Return the measured numbers of ``folder``/out/result.json."""
    trainings = json.loads((folder / "out" / "result.json").read_text())["trainings"]
    cells = [cell for training in trainings for cell in training["cells"]]
    return json.dumps([{k: v for k, v in cell.items() if k not in ("seconds", "hardware")} for cell in cells])


def prepared(folder: Path) -> str:
    """Return a fingerprint of the stores in ``folder``/cache, where nothing unfinished may be left.

    A store's name follows from the path and the times of its pictures, which differ; its content does not.
    """
    files = [file for file in (folder / "cache").rglob("*") if file.is_file()]
    return json.dumps(sorted((file.suffix, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files))


def compiled(folder: Path) -> str:
    """Return what a training with compiled code computed, and which kinds of file the cache holds."""
    kinds = sorted({file.suffix for file in (folder / "cache").rglob("*") if file.is_file()})
    return trained(folder) + " ".join(kinds)


def resumed(words: list[str]) -> Callable[[Path], list[str]]:
    """Return a function that gives the command to resume a training: anew if nothing was written yet."""

    def resume(folder: Path) -> list[str]:
        run = folder / "run"
        return ["train", "--resume", "run", *workers(words)] if (run / "config.json").exists() else words

    return resume


def workers(words: list[str]) -> list[str]:
    """Return the flag of several processes, if it is among the words."""
    return words[words.index("--workers") :][:2] if "--workers" in words else []


def commands(folder: Path) -> list[Command]:
    """Return the commands to kill."""
    train = [*SMALL, "--out", "run"]
    two = [*train, "--workers", "2"]
    native = [*train[:-2], "--execution", "native", "--out", "run"]
    reproduce = ["reproduce", "sine", "--budget", "0.001", "--episodes", "4", "--device", "cpu", "--out", "out"]
    own = ["train", "--data", "pictures", "--image-size", "12", *TINY, "--outer-steps", "1", "--out", "run"]
    finished = folder / "finished"

    def with_run(place: Path) -> None:
        shutil.copytree(finished / "run", place / "run")

    def without_run(place: Path) -> list[str]:
        shutil.rmtree(place / "run", ignore_errors=True)
        return own

    finished.mkdir()
    end(start(Command("", train, resumed(train), trained), finished, train), None)
    evaluate = ["evaluate", "run", "--episodes", "300", "--device", "cpu"]
    return [
        Command("train", train, resumed(train), trained),
        Command("train, in a process of its own", train, resumed(train), trained, own_process=True),
        Command("evaluate", evaluate, lambda place: evaluate, evaluated, with_run),
        Command("reproduce", reproduce, lambda place: reproduce, reproduced),
        Command("prepare own images", own, without_run, prepared,
                lambda place: (pictures(place / "pictures", classes=20, images=20), None)[1]),
        Command("compile and train", native, resumed(native), compiled),
        Command("train by two processes", two, resumed(two), trained, own_process=True),
    ]  # fmt: skip


def kill_commands(counts: Counts, folder: Path, options: argparse.Namespace, until: float) -> None:
    """Kill every command in turn at random moments, give it again until it ends, and compare."""
    if not options.kills:
        return
    place = folder / "kills"
    place.mkdir()
    chosen = [command for command in commands(place) if options.only in command.name]
    whole: dict[str, tuple[str, float]] = {}
    for number in range(options.kills):
        if not chosen or time.monotonic() > until:
            return
        command = chosen[number % len(chosen)]
        rng = random.Random(f"{options.seed} {command.name} {number}")
        if command.name not in whole:
            whole[command.name] = undisturbed(command, place / f"whole-{len(whole)}")
        expected, seconds = whole[command.name]
        once(counts, command, place / str(number), rng, expected, seconds)
        shutil.rmtree(place / str(number))


def undisturbed(command: Command, folder: Path) -> tuple[str, float]:
    """Run a command without killing it; return its result and the seconds it took."""
    folder.mkdir()
    command.prepare(folder)
    begun = time.monotonic()
    code = end(start(command, folder, command.words), None)
    if code:
        raise RuntimeError(f"{command.name}: exit code {code}: {(folder / 'err').read_text()[-500:]}")
    return command.result(folder), time.monotonic() - begun


def once(counts: Counts, command: Command, folder: Path, rng: random.Random, expected: str, seconds: float) -> None:
    """Kill a command once or several times, let it end, and count what comes of it."""
    folder.mkdir()
    command.prepare(folder)
    words, said = command.words, []
    for _ in range(rng.choice([1, 1, 2])):
        process = start(command, folder, words)
        number = rng.choice(SIGNALS)
        code = end(process, rng.uniform(0, seconds), number)
        said.append(f"{number.name} gave {code}")
        errors = (folder / "err").read_text() if (folder / "err").exists() else ""  # it may be killed before it writes
        if "Traceback" in errors:
            counts.add(command.name, "tracebacks", f"{said}: {(folder / 'err').read_text()[-300:]}")
            return
        words = command.resume(folder)
    code = end(start(command, folder, words), None)
    if code is None:
        counts.add(command.name, "hangs", f"{said}, then {' '.join(words)}")
    elif code:
        fault = f"{said}, then {' '.join(words)} gave {code}: {(folder / 'err').read_text()[-300:]}"
        counts.add(command.name, "tracebacks", fault)
    elif command.result(folder) != expected:
        counts.add(command.name, "silent", f"{said}, then {' '.join(words)}: another result")
    elif left := [file.name for file in folder.rglob("*.tmp")]:
        counts.add(command.name, "silent", f"{said}: left {left}")
    else:
        counts.add(command.name, "unchanged")


Started = BaseProcess | subprocess.Popen[bytes]


def start(command: Command, folder: Path, words: list[str]) -> Started:
    """Start ``reptile WORDS`` in a folder, with a cache of its own there."""
    environment = os.environ | {"TORCHREPTILE_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    if command.own_process:
        with (folder / "out.txt").open("wb") as out, (folder / "err").open("wb") as err:
            return subprocess.Popen([sys.executable, "-m", "torchreptile", *words], cwd=folder, env=environment,
                                    stdout=out, stderr=err)  # fmt: skip
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(FIRST)
    process = context.Process(target=forked, args=(str(folder), dict(environment), words))
    process.start()
    return process


def forked(folder: str, environment: dict[str, str], words: list[str]) -> None:
    """Run ``reptile WORDS`` in this process, as if it had been started for it."""
    from torchreptile.cli.main import main

    os.chdir(folder)
    os.environ.update(environment)
    for stream, name in ((1, "out.txt"), (2, "err")):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    torch.set_num_threads(1)
    sys.argv = ["reptile", *words]
    main()


def end(process: Started, after: float | None, number: signal.Signals = signal.SIGKILL) -> int | None:
    """Wait until a process ends, or send it a signal after so many seconds; return its exit code, None if it hangs."""
    if after is not None:
        _wait(process, after)
        if _code(process) is None:
            assert process.pid is not None
            os.kill(process.pid, number)
    _wait(process, LONGEST)
    code = _code(process)
    if code is None:
        process.kill()
        _wait(process, LONGEST)
    return code


def _wait(process: Started, seconds: float) -> None:
    """Wait until a process has ended, for so many seconds at most."""
    if isinstance(process, subprocess.Popen):
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
    else:
        process.join(seconds)


def _code(process: Started) -> int | None:
    """Return the exit code of a process, None if it runs."""
    return process.poll() if isinstance(process, subprocess.Popen) else process.exitcode
