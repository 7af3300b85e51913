"""Algorithms and data sets from outside the package: a user's file, a registered class, a second installed package."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import torchreptile as tr
from tests.easy import REPOSITORY, load_script
from tests.forked import run_forked
from torchreptile.algorithms.base import Adapted, Predictions
from torchreptile.algorithms.build import algorithm_class, use_algorithm
from torchreptile.algorithms.meta_state import MetaGradient, MetaState
from torchreptile.algorithms.reptile import Reptile
from torchreptile.core.config import AlgorithmRow, Config, TaskConfig
from torchreptile.core.config.algorithm_table import algorithm_names
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.custom import custom_splits
from torchreptile.data.dataset_table import register_dataset
from torchreptile.data.episodes import Episodes
from torchreptile.testing import check_algorithm

ALGORITHM = f"{REPOSITORY / 'examples' / 'algorithm.py'}:SignedReptile"
DATASET = f"{REPOSITORY / 'examples' / 'dataset.py'}:bars"
SHORT = ["--outer-steps", "2", "--monitor-episodes", "2", "--eval-steps", "2", "--device", "cpu", "--execution", "loop"]


def reptile(*words: str, code: int = 0, **environment: str) -> str:
    """Run the command, and return what it prints."""
    done = run_forked(*words, **{"PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **environment})
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_an_algorithm_from_a_file_trains_resumes_and_is_measured_where_it_is_named(tmp_path: Path) -> None:
    run, named = str(tmp_path / "run"), ["--algorithm", ALGORITHM]
    assert "--sign-share" in reptile("train", *named, "--help")
    reptile("train", "glyphs-1shot-5way", *named, "--sign-share", "0.5", *SHORT, "--out", run)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["method"]
    assert settings == {"algorithm": "signed-reptile", "sign_share": 0.5}
    refused = reptile("evaluate", run, "--episodes", "4", code=2)
    assert "algorithm is signed-reptile" in refused
    assert "FILE.py:CLASS" in refused
    assert "delete" not in refused  # last.pt names the same algorithm
    assert "inductive" in reptile("evaluate", run, "--episodes", "4", *named)
    assert "run" in reptile("train", "--resume", run, *named)
    assert "sign_share is 2" in reptile("train", *named, "--sign-share", "2", code=2)


def test_an_algorithm_from_a_file_is_compared_with_others(tmp_path: Path) -> None:
    words = ["compare", "glyphs-1shot-5way", "--algorithms", "scratch", ALGORITHM, "--outer-steps", "2"]
    printed = reptile(*words, "--episodes", "4", "--device", "cpu", "--out", str(tmp_path / "out"))
    assert "signed-reptile" in printed
    assert "scratch" in printed


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("nowhere.py:Mine", "there is no file nowhere.py"),
        (ALGORITHM.replace("SignedReptile", "replace"), "must be a subclass of torchreptile.Algorithm"),
        (ALGORITHM.replace("SignedReptile", "Missing"), "has no callable Missing"),
        (ALGORITHM.replace("SignedReptile", "Reptile"), "Reptile has no row"),
    ],
)
def test_a_file_without_such_an_algorithm_is_refused_in_one_line(named: str, message: str) -> None:
    printed = reptile("train", "--algorithm", named, code=2)
    assert message in printed
    assert printed.count("\n") == 1


def test_a_data_set_from_a_file_is_divided_and_run_only_where_it_is_named(tmp_path: Path) -> None:
    run, named = str(tmp_path / "run"), ["--dataset", DATASET]
    assert "give --grey --image-size 28" in reptile("train", *named, *SHORT, "--out", run, code=2)
    reptile("train", *named, "--grey", *SHORT, "--out", run)
    assert f"add --dataset {DATASET}" in reptile("evaluate", run, "--episodes", "4", code=2)
    assert "bars" in reptile("evaluate", run, "--episodes", "4", *named)


def test_images_in_memory_are_a_store_and_a_registered_data_set() -> None:
    classes = load_script("examples", "dataset").bars()
    store = tr.ImageStore.from_arrays(classes)
    assert (len(store), store.image_shape) == (60, (1, 28, 28))
    register_dataset("test-bars", lambda: store)
    task = TaskConfig(dataset="test-bars", grey=True, image_size=28, split_ratio="0.5/0/0.5")
    splits = custom_splits(task)
    assert (len(splits.train), splits.val, len(splits.test)) == (30, None, 30)
    assert not set(splits.train.class_names) & set(splits.test.class_names)
    name = splits.test.class_names[3]
    start = int(splits.test.class_starts[3])
    torch.testing.assert_close(splits.test.images[start : start + 20, 0], torch.from_numpy(classes[name]))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "there are no classes"),
        ({"a": torch.zeros(2, 1, 8, 8)}, r"class a has images of shape \(2, 1, 8, 8\) torch.float32"),
        ({"a": torch.zeros(2, 8, 8).byte(), "b": torch.zeros(2, 8, 9).byte()}, "class b has images of shape"),
        ({"a": torch.zeros(0, 8, 8).byte()}, "one or more"),
    ],
)
def test_arrays_that_are_no_images_are_refused(classes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        tr.ImageStore.from_arrays(classes)


def fails() -> None:
    raise RuntimeError("no disk today")


@pytest.mark.parametrize(
    ("function", "message"), [(fails, "RuntimeError: no disk today"), (lambda: 3, "its function returned a int")]
)
def test_a_function_that_gives_no_images_is_named(function: object, message: str) -> None:
    register_dataset("test-broken", function)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message):
        custom_splits(TaskConfig(dataset="test-broken"))


def test_a_custom_data_set_has_one_split_scheme() -> None:
    register_dataset("test-bars", load_script("examples", "dataset").bars)
    task = TaskConfig(dataset="test-bars", grey=True, image_size=28, split_scheme="vinyals")
    with pytest.raises(ConfigError, match="split scheme 'vinyals' does not exist for test-bars; choose one of own"):
        custom_splits(task)


@pytest.mark.parametrize("name", ["glyphs", "sine", "folder"])
def test_a_name_of_the_package_is_not_taken_by_a_custom_data_set(name: str) -> None:
    """It would be ignored, and the built-in data trained on."""
    with pytest.raises(ConfigError, match=f"the name {name} belongs to another data set"):
        register_dataset(name, fails)


def test_a_second_installed_package_brings_an_algorithm_and_a_data_set(tmp_path: Path) -> None:
    """A module and its metadata in a folder on the path are what an installed package is."""
    site = tmp_path / "site"
    info = site / "outside-1.0.dist-info"
    info.mkdir(parents=True)
    source = (REPOSITORY / "examples" / "algorithm.py").read_text()
    (site / "outside_algorithm.py").write_text(source.replace("signed-reptile", "outside-reptile"))
    (site / "outside_data.py").write_text((REPOSITORY / "examples" / "dataset.py").read_text())
    (site / "outside_failing.py").write_text("raise RuntimeError('needs a licence')")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[torchreptile.algorithms]\noutside-reptile = outside_algorithm:SignedReptile\nbroken = nothing:Here\n"
        "failing = outside_failing:Here\nother-name = outside_algorithm:SignedReptile\n"
        "[torchreptile.datasets]\noutside-bars = outside_data:bars\n"
    )
    path = {"PYTHONPATH": f"{site}:{REPOSITORY}"}
    run = str(tmp_path / "run")
    words = ["--algorithm", "outside-reptile", "--sign-share", "0.5", "--dataset", "outside-bars", "--grey"]
    reptile("train", *words, *SHORT, "--out", run, **path)
    assert "outside-reptile" in reptile("evaluate", run, "--episodes", "4", **path)
    for name, message in {
        "broken": "its package cannot be imported (ModuleNotFoundError: No module named 'nothing')",
        "failing": "its package cannot be imported (RuntimeError: needs a licence)",
        "other-name": "has a row named outside-reptile; its package must register it as outside-reptile",
    }.items():
        refused = reptile("train", "--algorithm", name, code=2, **path)
        assert refused.startswith(f"reptile: algorithm {name}: ")
        assert message in refused
    assert "algorithm is outside-reptile" in reptile("evaluate", run, code=2)  # without the package


@pytest.mark.parametrize("name", algorithm_names())
def test_built_in_algorithms_pass_the_checks(name: str) -> None:
    small = {"mann_units": 10, "mann_slots": 8, "mann_width": 6, "mann_heads": 2} if name == "mann" else {}
    check_algorithm(name, **small)


class Keeping(Reptile):
    """Wrong on purpose: it changes the state that it is given."""

    row = AlgorithmRow(name="keeping", title="Keeping", implementation="", plain_steps=True)

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        result = super().meta_gradient(state, episodes, generator)
        for p in state.params.values():
            p += 1
        return result


class Drawing(Reptile):
    """Wrong on purpose: it draws from the global generator."""

    row = AlgorithmRow(name="drawing", title="Drawing", implementation="", plain_steps=True)

    def meta_gradient(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> MetaGradient:
        result = super().meta_gradient(state, episodes, generator)
        return replace(result, gradient={name: g + 0.1 * torch.rand_like(g) for name, g in result.gradient.items()})


class Peeking(Reptile):
    """Wrong on purpose: it looks at the labels of the queries."""

    row = AlgorithmRow(name="peeking", title="Peeking", implementation="", plain_steps=True)

    def predict(self, state: MetaState, episodes: Episodes, generator: torch.Generator) -> Predictions:
        return replace(super().predict(state, episodes, generator), transductive=episodes.query_y)


class Averaging(Reptile):
    """Wrong on purpose: it adapts to the mean of the tasks' support sets."""

    row = AlgorithmRow(name="averaging", title="Averaging", implementation="", plain_steps=True)

    def adapt(self, state: MetaState, support_x: torch.Tensor, support_y: torch.Tensor, drawn: torch.Tensor) -> Adapted:
        return super().adapt(state, support_x.mean(0, keepdim=True).expand_as(support_x), support_y, drawn)


class Forgetting(Reptile):
    """Wrong on purpose: it says that the adapted weights are those before adaptation."""

    row = AlgorithmRow(name="forgetting", title="Forgetting", implementation="", plain_steps=True)

    def settled(self, state: MetaState, adapted: Adapted) -> tuple[MetaState, Config]:
        return state, self.config.replace(eval_steps=0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Keeping, "meta_gradient changed the state"),
        (Drawing, "the same seed gave other weights"),
        (Peeking, "are labelled otherwise once their true labels are others"),
        (Averaging, "one task at a time, .* of the queries got another label"),
        (Forgetting, "a learner made from what settled returns differs"),
    ],
)
def test_the_checks_find_what_is_wrong(kind: type[Reptile], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_algorithm(kind)


def test_a_class_of_your_own_is_trained_from_python(tmp_path: Path) -> None:
    signed = load_script("examples", "algorithm").SignedReptile
    short = {"outer_steps": 2, "monitor_episodes": 2, "eval_steps": 2, "execution": "loop", "device": "cpu"}
    config = tr.preset("glyphs-1shot-5way", signed).replace(**short, sign_share=0.5)
    runs = [
        tr.train(config, tmp_path / "one"),
        tr.train(tr.preset("glyphs-1shot-5way").replace(**short), tmp_path / "two", algorithm=signed),
    ]
    assert [run.step for run in runs] == [2, 2]
    first, second = (tr.evaluate(run.folder, episodes=4, seed=0).config.method for run in runs)
    assert (first.algorithm, second.algorithm) == ("signed-reptile", "signed-reptile")


def test_a_class_of_your_own_is_known_by_its_row() -> None:
    signed = load_script("examples", "algorithm").SignedReptile
    assert algorithm_class(use_algorithm(signed)) is signed
    assert use_algorithm(signed) == "signed-reptile"  # again
    check_algorithm(signed, sign_share=0.5)
    with pytest.raises(ConfigError, match="Reptile has no row"):
        use_algorithm(Reptile)
    with pytest.raises(ConfigError, match="the name maml belongs to another algorithm"):
        use_algorithm(type("Mine", (Reptile,), {"row": replace(signed.row, name="maml")}))
