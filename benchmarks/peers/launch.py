"""The other end of worker.py: start contestants in separate processes and send them work."""

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
    """A contestant ended early; the message is its last line of output."""


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
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in __exit__
        self._process = subprocess.Popen(
            words if warm_up else [*words, "--no-warm-up"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            env=environment_variables(contestant, threads),
        )
        self._answer("ready")

    def seconds(self, outer_steps: int) -> float:
        """Run outer steps; return their seconds, by the worker's own clock."""
        self._send(f"step {outer_steps}")
        return float(self._answer("time"))

    def losses(self) -> np.ndarray:
        """Return the losses of the case's outer steps, (outer steps, inner steps, tasks)."""
        self._send("check")
        return np.array(json.loads(self._answer("losses")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    def _send(self, line: str) -> None:
        """Send a line to the worker."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")

    def _answer(self, word: str) -> str:
        """Read the worker's answer, which must start with this word; return the rest."""
        assert self._process.stdout is not None
        first, _, rest = self._process.stdout.readline().partition(" ")
        if first.strip() != word:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines()
            raise FailedError(lines[-1] if lines else f"ended with {self._process.returncode}")
        return rest


def environment_variables(contestant: Contestant, threads: int) -> dict[str, str]:
    """Return environment variables that set the number of threads for every library."""
    variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")}
    variables["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}"
    variables["JAX_PLATFORMS"] = "cpu"
    inherited = dict(os.environ)
    if contestant.environment == OURS:
        variables["GOMP_SPINCOUNT"] = SPINS  # as in the command reptile
    else:
        inherited.pop("PYTHONPATH", None)  # peers see only the packages of their environment
    return inherited | variables
