"""Several processes that work as one: equal to one, written by one, and what happens when one is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests import work_together
from tests.easy import REPOSITORY, TINY, double_params, easy_store, skip_without_native, small_config
from tests.forked import Forked
from tests.in_process import Done
from tests.runs import assert_same_run
from tests.work_together import TASKS, gradient_and_labels
from torchreptile.algorithms.build import build_algorithm
from torchreptile.core.distributed.launcher import free_port, launch, orphaned
from torchreptile.core.distributed.process_group import ALONE, Processes
from torchreptile.core.errors import ConfigError
from torchreptile.data.splits import Splits
from torchreptile.training.checkpoint import load_checkpoint
from torchreptile.training.run_folder import RunFolder
from torchreptile.training.train import resume, train

SCRIPT = REPOSITORY / "tests" / "work_together.py"


def together(*words: str | Path, size: int = 2, **environment: str) -> list[Done]:
    """Run the script in ``size`` processes and wait for all of them."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size), **environment}
    started = [
        Forked(work_together.run, list(map(str, words)), {**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(size)
    ]
    return [process.done(120) for process in started]


class Alike(Processes):
    """Processes of which each sends what this one does."""

    def from_first(self, content: bytes) -> bytes:
        return content

    def from_all(self, content: bytes) -> list[bytes]:
        return [content] * self.size


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps by two processes, of which none was lost."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    ended = together("train", run, "12")
    assert [process.returncode for process in ended] == [0, 0], ended
    return run


@pytest.mark.parametrize("tasks", [1, 5, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_cover_all_tasks_evenly(tasks: int, size: int) -> None:
    shares = [list(range(tasks))[Processes(rank, size).share(tasks)] for rank in range(size)]
    assert [task for share in shares for task in share] == list(range(tasks))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("algorithm", ["reptile", "maml", "meta-sgd"])
def test_two_processes_give_what_one_gives(algorithm: str, tmp_path: Path) -> None:
    """SGD in float64, five tasks over two processes: to 1e-10, and the same labels."""
    ended = together("gradient", tmp_path / "two.pt", algorithm)
    assert [process.returncode for process in ended] == [0, 0], ended
    two, one = torch.load(tmp_path / "two.pt", weights_only=True), gradient_and_labels(ALONE, algorithm)
    assert two.keys() == one.keys()
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=0, atol=1e-10)
    assert one["labels"].shape == (2, TASKS, 6)
    assert len(one["labels"].unique()) == 3
    assert float(one["head.weight"].abs().max()) > 1e-3


def test_a_training_by_two_is_written_by_one_and_resumed_exactly(
    uninterrupted: Path, tmp_path: Path, easy_data: Splits
) -> None:
    """Six steps by two processes; a lost process ends the run cleanly, and resumed it is the same to the bit."""
    assert load_checkpoint(uninterrupted / "last.pt").step == 12

    lost = together("train", tmp_path / "run", "12", DIE_AT="1 6")
    assert lost[0].returncode == 2, lost
    assert lost[1].returncode == -9
    assert "another process of this run was lost" in lost[0].stderr
    assert f"resume with --resume {tmp_path / 'run'}" in lost[0].stderr
    assert load_checkpoint(tmp_path / "run" / "last.pt").step == 5
    ended = together("resume", tmp_path / "run")
    assert [process.returncode for process in ended] == [0, 0], ended
    assert_same_run(uninterrupted, tmp_path / "run")

    # One process alone draws the same tasks; the numbers differ by rounding.
    assert resume(tmp_path / "run").step == 12
    single = train(load_checkpoint(tmp_path / "run" / "last.pt").config, tmp_path / "single")
    shared = load_checkpoint(uninterrupted / "last.pt")
    torch.testing.assert_close(
        single.state.params["head.weight"], shared.state.params["head.weight"], rtol=0, atol=2e-3
    )


def test_torchrun_starts_again_what_was_lost(uninterrupted: Path, tmp_path: Path) -> None:
    """Elastic: a worker dies, torchrun restarts all, and the run ends as if nothing had happened."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    restarted = subprocess.run(
        [*torchrun, "--max-restarts", "1", SCRIPT, "train", tmp_path / "run", "12"],
        env={**os.environ, "DIE_AT": "1 6", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert restarted.returncode == 0, restarted.stderr
    assert_same_run(uninterrupted, tmp_path / "run")


def test_processes_of_several_machines_that_were_restarted_resume_together(uninterrupted: Path, tmp_path: Path) -> None:
    """Each machine counts its own restarts: only the second process knows of one, and nothing is left to train."""
    shutil.copytree(uninterrupted, tmp_path / "run")
    ended = together("train", tmp_path / "run", "12", RESTARTED="1", GROUP_WORLD_SIZE="2")
    assert [process.returncode for process in ended] == [0, 0], ended
    assert_same_run(uninterrupted, tmp_path / "run")


def test_processes_agree_and_fail_together(tmp_path: Path) -> None:
    ended = together("agree", tmp_path / "message")
    assert [process.returncode for process in ended] == [0, 0], ended
    first, second = (json.loads((tmp_path / f"message-{rank}").read_text()) for rank in (0, 1))
    assert first[:3] == second[:3] == [4, ["", "x"], "all succeeded"]
    assert first[3:] == ["ConfigError: process 1: nothing at 1", "DataError: nothing at 0"]
    assert second[3:] == ["DataError: nothing at 1", "DataError: nothing at 1"]


def test_the_first_process_chooses_the_execution_of_all(tmp_path: Path) -> None:
    """The other one has a compiler, and auto would take native there."""
    skip_without_native()
    ended = together("train", tmp_path / "run", "2", "auto", NO_NATIVE="0")
    assert [process.returncode for process in ended] == [0, 0], ended
    environment = RunFolder(tmp_path / "run").environment()
    assert (environment["execution"], environment["processes"], environment["threads"]) == ("grouped", 2, 1)


@pytest.mark.parametrize(
    ("lacking", "message"),
    [
        ("NO_NATIVE", "execution native is not possible here: no compiler here; auto chooses another"),
        ("OTHER_DATA", "holds other training data here than for the first process"),
        ("OTHER_SEED", "the settings are not those of the first process: seed 1, not 0"),
    ],
)
def test_a_process_that_cannot_do_it_says_so_and_all_end(tmp_path: Path, lacking: str, message: str) -> None:
    skip_without_native("native" if lacking == "NO_NATIVE" else "")
    first, second = together("train", tmp_path / "run", "4", "auto", **{lacking: "1"})
    assert (first.returncode, second.returncode) == (2, 2), (first, second)
    assert first.stderr.startswith("process 1: ")
    assert message in first.stderr
    assert message in second.stderr
    assert len(first.stderr.splitlines()) == len(second.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_more_processes_than_tasks_are_refused(
    tmp_path: Path, easy_data: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchreptile.training.train.joined", lambda: nullcontext(Alike(0, 4)))
    with pytest.raises(ConfigError, match="meta_batch is 3; that is too few tasks for 4 processes"):
        train(small_config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_carry_cannot_be_shared() -> None:
    config = small_config(inner_state="carry")
    algorithm = build_algorithm(config, TINY, torch.device("cpu"))
    algorithm.context = replace(algorithm.context, processes=Processes(0, 2))
    state, generator = algorithm.initial_state(double_params(config, TINY)), torch.Generator()
    episodes = algorithm.sampler(easy_store(30, shape=TINY)).sample(3, generator)
    with pytest.raises(ConfigError, match="one task after another; several processes need share or reset"):
        algorithm.meta_gradient(state, episodes, generator)


def test_workers_show_the_first_ones_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert launch(2, ["presets"]) == 0
    assert capfd.readouterr().out.count("omniglot-1shot-5way") == 1
    assert launch(2, ["evaluate", "nothing-here"]) == 2
    shown = capfd.readouterr()
    assert shown.err.count("neither a run folder nor shipped weights") == 1


def test_a_process_knows_when_its_launcher_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHREPTILE_LAUNCHER", raising=False)
    assert not orphaned()
    monkeypatch.setenv("TORCHREPTILE_LAUNCHER", str(os.getppid()))
    assert not orphaned()
    monkeypatch.setenv("TORCHREPTILE_LAUNCHER", str(os.getpid()))
    assert orphaned()
