"""Custom algorithms in other processes: those of comparisons, experiments and benchmarks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import torchreptile as tr
from tests.easy import REPOSITORY, TINY
from torchreptile.algorithms.build import use_algorithm
from torchreptile.algorithms.custom import CustomCode, load_algorithm
from torchreptile.algorithms.reptile import Reptile
from torchreptile.core.config import AlgorithmRow, Config
from torchreptile.core.distributed.jobs import Job, Send, do_jobs
from torchreptile.core.errors import ConfigError
from torchreptile.experiments.benchmark.bench import bench
from torchreptile.experiments.benchmark.workloads import Candidate
from torchreptile.experiments.compare import compare
from torchreptile.experiments.reproduce import find_experiment
from torchreptile.experiments.reproduce.runner import ExperimentOptions, run_experiment

FILE = f"{REPOSITORY / 'examples' / 'algorithm.py'}:SignedReptile"
DATASET = f"{REPOSITORY / 'examples' / 'dataset.py'}:bars"


def title(config: Config, send: Send) -> str:
    """Work that needs the algorithm already when it is unpickled, because the settings are its own class."""
    return f"{config.row.title}, {config.method}"


@pytest.fixture
def of_a_notebook(monkeypatch: pytest.MonkeyPatch) -> type[Reptile]:
    """A class as a notebook defines it."""
    monkeypatch.setattr("torchreptile.core.config.algorithm_table._registered", {})
    row = AlgorithmRow(name="mine", title="Mine", implementation="")
    kind = type("Mine", (Reptile,), {"row": row})
    kind.__module__ = "__main__"
    monkeypatch.setattr("torchreptile.algorithms.build._registered", {})
    use_algorithm(kind)
    return kind


def test_code_of_files_reaches_jobs() -> None:
    config = Config().replace(algorithm=load_algorithm(FILE), sign_share=0.5)
    code = CustomCode.of(config)
    assert code == CustomCode(FILE)
    assert CustomCode.of(Config().replace(dataset=DATASET)) == CustomCode(dataset=DATASET)
    answers: list[Any] = []
    assert do_jobs(
        [Job("job", partial(title, config), code.load)], 1, 1, print, lambda _, answer: answers.append(answer)
    )
    assert answers == [title(config, print)]


def test_a_class_of_a_module_is_imported_by_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchreptile.algorithms.build._registered", {"reptile": Reptile})
    code = CustomCode.of(Config())
    assert code == CustomCode("torchreptile.algorithms.reptile:Reptile")
    assert CustomCode.of(Config().replace(algorithm="foml")) == CustomCode()


def test_a_class_of_the_script_or_notebook_is_refused_before_anything_is_computed(
    of_a_notebook: type[Reptile], tmp_path: Path
) -> None:
    refusal = "algorithm mine is the class Mine of the script or notebook that is run"
    config = tr.preset("glyphs-1shot-5way").replace(algorithm="mine")
    with pytest.raises(ConfigError, match=refusal):
        compare("glyphs-1shot-5way", ["scratch", "mine"], 1, tmp_path / "compared", outer_steps=1)
    with pytest.raises(ConfigError, match=refusal):
        bench(config, TINY, [Candidate("loop")], torch.device("cpu"), rounds=3, on_progress=pytest.fail)
    known = find_experiment("omniglot-5way")
    arm = replace(known.arms[0], config=config)
    with pytest.raises(ConfigError, match=refusal):
        run_experiment(replace(known, arms=(arm,)), tmp_path / "reproduced", ExperimentOptions(episodes=2), quiet=True)
    assert not list(tmp_path.rglob("last.pt"))
