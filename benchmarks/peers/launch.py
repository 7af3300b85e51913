"""The other end of worker.py: starts contestants, each alone in a process, and asks them for work."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from types import TracebackType
from typing import Self

import numpy as np
from contestants import Contestant
from environments import HERE, OURS, interpreter

from torchreptile.core.distributed.launcher import SPINS


class FailedError(Exception):
    """A contestant that ended early; says the last line it left."""


class Running:
    """A started contestant; leaving the context ends it."""

    def __init__(self, contestant: Contestant, network: str, case: str, threads: int, warm_up: bool) -> None:
        """Start it and wait until it is ready.

        Raises:
            UnavailableError: its environment cannot be made.
            FailedError: it cannot do this work.
        """
        words = [str(interpreter(contestant.environment)), str(HERE / contestant.script)]
        words += [contestant.variant, network, contestant.rules, case, str(threads)]
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in __exit__
        self._process = subprocess.Popen(
            words if warm_up else [*words, "--no-warm-up"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            bufsize=1,
            env=surroundings(contestant, threads),
        )
        self._answer("ready")

    def seconds(self, outer_steps: int) -> float:
        """What so many outer steps take, by the worker's own clock."""
        self._tell(f"step {outer_steps}")
        return float(self._answer("time"))

    def losses(self) -> np.ndarray:
        """Of the case's outer steps, (outer steps, inner steps, tasks)."""
        self._tell("check")
        return np.array(json.loads(self._answer("losses")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            if stream is not None:
                stream.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")

    def _answer(self, word: str) -> str:
        assert self._process.stdout is not None
        first, _, rest = self._process.stdout.readline().partition(" ")
        if first.strip() != word:
            self._process.wait()
            self._said.seek(0)
            lines = self._said.read().strip().splitlines()
            raise FailedError(lines[-1] if lines else f"ended with {self._process.returncode}")
        return rest


def surroundings(contestant: Contestant, threads: int) -> dict[str, str]:
    """Environment variables: every library is told the number of threads in its own words."""
    told = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")}
    told["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    told["JAX_PLATFORMS"] = "cpu"
    inherited = dict(os.environ)
    if contestant.environment == OURS:
        told["GOMP_SPINCOUNT"] = SPINS  # as the command reptile has it
    else:
        inherited.pop("PYTHONPATH", None)  # a peer sees its own packages alone
    return inherited | told
