"""torchreptile: the variant is an execution (auto, loop, grouped, matmul, vmap, compiled, native), or ``peak``.

``peak`` multiplies matrices, which measures the peak speed of the same threads in turn with the others.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from work import INNER_BATCH, INNER_LR, INNER_STEPS, OUTER_STEP_SIZE, TASKS, WAY, Case, Network, Protocol
from worker import Contestant, serve

from torchreptile.algorithms.build import build_algorithm
from torchreptile.algorithms.optim import inner_loop as inner
from torchreptile.algorithms.optim.inner_loop import InnerLoop, InnerState
from torchreptile.algorithms.reptile import Reptile
from torchreptile.core.config import Config
from torchreptile.experiments.benchmark.bench import random_store
from torchreptile.models.built_in import Params
from torchreptile.training.outer_step import OuterStep

CPU = torch.device("cpu")
PEAK = "peak"
PEAK_SIDE = 2048


def settings(rules: Protocol, execution: str = "auto") -> Config:
    """Return the workload as settings, with the published number of outer steps, on which ``auto`` depends."""
    return Config().replace(
        way=WAY,
        train_shots=rules.shots,
        inner_steps=INNER_STEPS,
        inner_batch=INNER_BATCH,
        inner_lr=INNER_LR,
        inner_state=rules.inner_state,
        meta_batch=TASKS,
        execution=execution,
    )


class TorchReptile:
    """Outer steps as in `reptile train`."""

    def __init__(self, execution: str, network: Network, rules: Protocol, case: Case) -> None:
        inner.EPS = case.eps  # a constant of the package, which differs from it only in checks
        config = settings(rules, execution)
        task_steps = config.outer.outer_steps * TASKS * INNER_STEPS
        algorithm = build_algorithm(config, network.image_shape, CPU, task_steps)
        assert isinstance(algorithm, Reptile)
        self._algorithm, self._settings = algorithm, config.outer
        self._sampler = self._algorithm.sampler(random_store(network.image_shape, CPU))
        self._state = self._algorithm.initial_state({name: torch.from_numpy(p) for name, p in case.weights.items()})
        self._outer_step = self._seeded(0)

    def _seeded(self, seed: int) -> OuterStep:
        """Return an outer step with a new random generator."""
        return OuterStep(
            self._algorithm, self._sampler, self._settings, torch.Generator().manual_seed(seed), record=False
        )

    def step(self, count: int) -> None:
        """Run outer steps as in training."""
        for _ in range(count):
            self._state, _ = self._outer_step(self._state, OUTER_STEP_SIZE)

    def check(self, case: Case) -> np.ndarray:
        """Return losses of outer steps on the case's images, which are drawn again from the case's seed."""
        recorder = self._algorithm.inner_loop = _RecordingLoop(self._algorithm.inner_loop)
        self._outer_step = self._seeded(case.seed)
        losses = []
        for _ in case.images:
            self.step(1)
            losses.append(torch.cat(recorder.losses, dim=1))  # one entry per chunk of tasks
            recorder.losses.clear()
        return torch.stack(losses).double().numpy()


class _RecordingLoop(InnerLoop):
    """An inner loop that records every loss."""

    def __init__(self, loop: InnerLoop) -> None:
        self.__dict__.update(loop.__dict__)
        self.losses: list[Tensor] = []

    def run(self, params: Params, state: InnerState, batches: object) -> Tensor:
        losses = super().run(params, state, batches)  # type: ignore[arg-type]
        self.losses.append(losses)
        return losses


class Peak:
    """Products of square matrices, for the peak speed."""

    def __init__(self) -> None:
        self._a = torch.rand(PEAK_SIDE, PEAK_SIDE)

    def step(self, count: int) -> None:
        """Multiply matrices ``count`` times."""
        for _ in range(count):
            self._a @ self._a

    def check(self, case: Case) -> np.ndarray:
        """Not supported: there are no losses."""
        raise NotImplementedError


def build(variant: str, network: Network, rules: Protocol, case: Case, threads: int) -> Contestant:
    """Return the contestant that the command line names."""
    torch.set_num_threads(threads)
    return Peak() if variant == PEAK else TorchReptile(variant, network, rules, case)


if __name__ == "__main__":
    serve(build)
