"""One of several processes that work as one; started by a test, through torchrun or by hand.

python tests/work_together.py gradient FILE ALGORITHM  a meta-gradient and predictions in float64, saved by rank 0
python tests/work_together.py train FOLDER STEPS [EXECUTION]
    a training; with DIE_AT="RANK STEP" one process kills itself; that of rank NO_NATIVE has no native execution, that
    of rank OTHER_DATA other images, that of rank OTHER_SEED another seed; that of rank RESTARTED was started again
python tests/work_together.py agree FILE              what the processes say to each other, saved by each as FILE-RANK
python tests/work_together.py resume FOLDER            going on with it
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
torch.set_num_threads(1)

from tests.easy import TINY, double_params, easy_splits, easy_store, killable_config, small_config  # noqa: E402
from torchreptile.algorithms.build import build_algorithm  # noqa: E402
from torchreptile.algorithms.meta_state import MetaState  # noqa: E402
from torchreptile.core.config import TaskConfig  # noqa: E402
from torchreptile.core.distributed.launcher import restarted_by_launcher  # noqa: E402
from torchreptile.core.distributed.process_group import Processes, joined  # noqa: E402
from torchreptile.core.errors import DataError, TorchReptileError  # noqa: E402
from torchreptile.data.samplers import EpisodeSampler  # noqa: E402
from torchreptile.data.splits import Splits  # noqa: E402
from torchreptile.models.conv4 import executions, native  # noqa: E402
from torchreptile.models.conv4.native_library import NativeUnavailableError  # noqa: E402
from torchreptile.training import session, setup  # noqa: E402
from torchreptile.training import train as training  # noqa: E402
from torchreptile.training.outer_step import OuterStep  # noqa: E402

TASKS = 5


def gradient_and_labels(processes: Processes, algorithm_name: str = "reptile") -> dict[str, torch.Tensor]:
    """What a meta-batch of five tasks says, by SGD in float64, and the labels of five episodes."""
    config = small_config(algorithm=algorithm_name, inner_optimizer="sgd", inner_lr=0.1)
    algorithm = build_algorithm(config, TINY, torch.device("cpu"), processes=processes)
    state = algorithm.initial_state(double_params(config, TINY))
    store, generator = easy_store(30, 20, shape=TINY, noise=2.0), torch.Generator().manual_seed(3)
    sampler = algorithm.sampler(store)
    sampler.dtype = torch.float64
    gradients = algorithm.meta_gradient(state, sampler.sample(TASKS, generator), generator)
    episodes = EpisodeSampler(store, 3, 1, 2, torch.float64).sample(TASKS, generator)
    labels = algorithm.predict(state, episodes, generator)
    return {
        **gradients.gradient,
        "loss": gradients.loss,
        "labels": torch.stack([labels.transductive, labels.inductive]),
    }


class MortalOuterStep(OuterStep):
    """Kills its process where DIE_AT says, the first time."""

    steps = 0

    def __call__(self, state: MetaState, step_size: float) -> tuple[MetaState, torch.Tensor]:
        self.steps += 1
        if os.environ.get("DIE_AT") == f"{os.environ['RANK']} {self.steps}" and not restarted_by_launcher():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(state, step_size)


def loaded_here(task: TaskConfig) -> Splits:
    """The images that this process has."""
    return easy_splits(shape=(1, 14, 14)) if os.environ.get("OTHER_DATA") == os.environ["RANK"] else easy_splits()


def no_native_code() -> None:
    raise NativeUnavailableError("no compiler here")


def agreed(processes: Processes) -> list[object]:
    """What this process learns of the others."""
    results: list[object] = [processes.least(5 - processes.rank)]
    results.append([content.decode() for content in processes.from_all(b"x" * processes.rank)])
    with processes.together():
        results.append("all succeeded")
    for failing in ([1], [0, 1]):
        try:
            with processes.together():
                if processes.rank in failing:
                    raise DataError(f"nothing at {processes.rank}")
        except TorchReptileError as error:
            results.append(f"{type(error).__name__}: {error}")
    return results


def threads_of_gloo() -> list[str]:
    """Names of the threads that carry messages; one alive at the end can abort the process (where /proc tells)."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def main(command: str, target: str, *rest: str) -> int:
    if command == "gradient":
        with joined() as processes:
            result = gradient_and_labels(processes, *rest)
            if processes.rank == 0:
                torch.save(result, target)
        return 0
    if command == "agree":
        with joined() as processes:
            Path(f"{target}-{processes.rank}").write_text(json.dumps(agreed(processes)))
        return 0
    setup.load_splits = loaded_here
    if os.environ.get("NO_NATIVE") == os.environ["RANK"]:
        executions.native_library = native.native_library = no_native_code
    session.OuterStep = MortalOuterStep
    if os.environ.get("RESTARTED") == os.environ["RANK"]:
        os.environ["TORCHELASTIC_RESTART_COUNT"] = "1"
    try:
        if command == "train":
            config = killable_config(int(rest[0]))
            if os.environ.get("OTHER_SEED") == os.environ["RANK"]:
                config = config.replace(seed=config.run.seed + 1)
            training.train(config.replace(execution=rest[1]) if len(rest) > 1 else config, target)
        else:
            training.resume(target)
    except TorchReptileError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run() -> None:
    code = main(*sys.argv[1:])
    assert not threads_of_gloo(), threads_of_gloo()
    sys.exit(code)


if __name__ == "__main__":
    run()
