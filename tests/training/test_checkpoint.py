"""Checkpoints: what is written is what is read, damage is named, code is never run, the old file survives failure."""

from __future__ import annotations

import math
import os
import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.easy import small_config
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.inner_loop import InnerState
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.core.errors import RunError
from torchreptile.training.checkpoint import Checkpoint, Division, NotFiniteError, load_checkpoint, save_checkpoint
from torchreptile.training.metrics_log import MetricsLog
from torchreptile.training.run_folder import RunFolder


def some_checkpoint(step: int = 7) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    params = {"w": torch.randn(3, 2, generator=generator), "b": torch.randn(2, generator=generator)}
    v = {name: torch.rand(p.shape, generator=generator) for name, p in params.items()}
    return Checkpoint(
        config=small_config(way=4, inner_lr=0.0123),
        state=MetaState(
            params,
            InnerState(v, torch.tensor(35.0, dtype=torch.float64), 5),
            OuterState(
                {name: -p for name, p in params.items()},
                {name: 2 * p for name, p in v.items()},
                torch.tensor(7.0, dtype=torch.float64),
            ),
        ),
        step=step,
        seconds=12.25,
        generator=generator.get_state(),
        metrics_bytes=321,
        losses=(1.1, 3),
        best=0.625,
        data="a fingerprint",
        device="cpu",
        execution="loop",
        step_size=0.25,
        division=Division(2, 3, 20, 5),
    )


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "last.pt"
    save_checkpoint(some_checkpoint(), path)
    return path


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    for field in fields(Checkpoint):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name == "state":
            assert ours.params.keys() == theirs.params.keys()
            assert ours.inner.v.keys() == theirs.inner.v.keys()
            assert ours.outer.m.keys() == theirs.outer.m.keys()
            assert all(torch.equal(mine, its) for mine, its in zip(ours.tensors(), theirs.tensors(), strict=True))
            assert ours.inner.steps.dtype == theirs.inner.steps.dtype
            assert ours.inner.images == theirs.inner.images
        elif field.name == "generator":
            assert torch.equal(ours, theirs)
        else:
            assert ours == theirs, field.name


def test_round_trip(saved: Path) -> None:
    assert_same(load_checkpoint(saved), some_checkpoint())
    assert os.listdir(saved.parent) == ["last.pt"]


class Command:
    """Unpickles into a shell command: what a hostile file looks like."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.target}'",)


@pytest.mark.parametrize("how", ["torch.save", "pickle", "inside a checkpoint"])
def test_code_is_refused_and_not_run(saved: Path, how: str) -> None:
    target = saved.parent / "executed"
    if how == "pickle":
        saved.write_bytes(pickle.dumps(Command(target), protocol=2))  # torch warns of newer protocols
    elif how == "torch.save":
        torch.save(Command(target), saved)
    else:
        content = torch.load(saved, weights_only=True)
        torch.save(content | {"best": Command(target)}, saved)
    with pytest.raises(RunError, match=r"last\.pt: refused, it holds more than tensors and plain values"):
        load_checkpoint(saved)
    assert not target.exists()
    # The same file does run its command where nobody is careful, so the test above can fail.
    loader = pickle.loads(saved.read_bytes()) if how == "pickle" else torch.load(saved, weights_only=False)
    assert loader is not None
    assert target.exists()


def test_a_truncated_file_is_named_at_any_length(saved: Path) -> None:
    intact = saved.read_bytes()
    for length in [0, 1, 2, 10, *range(100, len(intact), len(intact) // 20), len(intact) - 1]:
        saved.write_bytes(intact[:length])
        with pytest.raises(RunError, match=r"last\.pt: "):
            load_checkpoint(saved)


@pytest.mark.parametrize(
    "content", [b"\n", b"not a checkpoint\n" * 50, b"\x80\x02", bytes(range(256)) * 8, b"PK\x03\x04"]
)
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"last\.pt: "):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [torch.zeros(3), {"weights": torch.zeros(3)}, {"format": "other"}, [1, 2], None])
def test_a_foreign_torch_file_is_named(tmp_path: Path, content: object) -> None:
    path = tmp_path / "last.pt"
    torch.save(content, path)
    with pytest.raises(RunError, match=r"last\.pt: not a checkpoint of this version"):
        load_checkpoint(path)


KEYS = [
    "config",
    "params",
    "inner",
    "outer",
    "step",
    "seconds",
    "generator",
    "metrics_bytes",
    "losses",
    "best",
    "data",
    "device",
    "execution",
]


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_part_is_named(saved: Path, key: str) -> None:
    content = torch.load(saved, weights_only=True)
    assert set(content) == {"format", "averages", "step_size", "division", *KEYS}
    del content[key]
    torch.save(content, saved)
    with pytest.raises(RunError, match=rf"last\.pt: the checkpoint is incomplete .*{key}"):
        load_checkpoint(saved)


def test_a_checkpoint_from_before_there_were_averages_has_none(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    for name in ("averages", "step_size", "division"):
        del content[name]
    torch.save(content, saved)
    old = load_checkpoint(saved)
    assert old.state.averages == {}
    assert old.division == Division(0, 0, 0, 0)  # which announces nothing


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("group", "named"), [("params", "b"), ("inner", "second moment of b"), ("outer", "outer first moment of b")]
)
def test_what_is_not_finite_is_neither_saved_nor_loaded(saved: Path, group: str, named: str, number: float) -> None:
    before, content = saved.read_bytes(), torch.load(saved, weights_only=True)
    diverged = load_checkpoint(saved)
    state = diverged.state
    tensors = {"params": state.params, "inner": state.inner.v, "outer": state.outer.m}[group]
    tensors["b"][1] = number
    with pytest.raises(NotFiniteError, match=rf"last\.pt: not saved, because {named} is not finite; the previous"):
        save_checkpoint(diverged, saved)
    assert saved.read_bytes() == before
    (content[group] if group == "params" else content[group]["v" if group == "inner" else "m"])["b"][1] = number
    torch.save(content, saved)
    with pytest.raises(RunError, match=rf"last\.pt: {named} is NaN or infinite; the training had diverged"):
        load_checkpoint(saved)


def test_a_sum_of_losses_that_is_not_finite_is_not_saved(saved: Path) -> None:
    with pytest.raises(NotFiniteError, match=r"last\.pt: not saved, because the loss is not finite"):
        save_checkpoint(replace(some_checkpoint(), losses=(math.nan, 3)), saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("config", "{}"),
        ("config", 3),
        ("inner", None),
        ("step", "seven"),
        ("losses", []),
        ("generator", None),
        ("division", {"threads": -1}),
        ("division", {"colour": 1}),
        ("division", {"threads": 1.5}),
    ],
)
def test_a_part_of_the_wrong_kind_is_refused(saved: Path, key: str, value: object) -> None:
    torch.save(torch.load(saved, weights_only=True) | {key: value}, saved)
    with pytest.raises(RunError, match=r"last\.pt: "):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", float("inf")),
        ("step", 10**18),
        ("step", True),
        ("metrics_bytes", float("inf")),
        ("metrics_bytes", -1),
        ("losses", [float("nan"), 1]),
        ("losses", [0.5, 1.5]),
        ("seconds", "long"),
        ("best", float("nan")),
        ("best", 2.0),
        ("data", 3),
        ("params", {"w": torch.zeros(3, 2, dtype=torch.int64), "b": torch.zeros(2)}),
        ("params", {"w": torch.zeros(1).expand(10**12), "b": torch.zeros(2)}),
        ("params", {3: torch.zeros(3)}),
        ("inner", {"v": {}, "steps": torch.tensor(-1.0)}),
        ("inner", {"v": {}, "steps": torch.zeros(2)}),
    ],
)
def test_a_value_that_cannot_be_is_refused(saved: Path, key: str, value: object) -> None:
    torch.save(torch.load(saved, weights_only=True) | {key: value}, saved)
    with pytest.raises(RunError, match=r"last\.pt: the checkpoint is incomplete"):
        load_checkpoint(saved)


def test_damage_anywhere_is_noticed_or_changes_nothing(saved: Path) -> None:
    """A bad sector: zeros in the place of a few bytes, at every place of the file."""
    intact = saved.read_bytes()
    refused = 0
    for start in range(0, len(intact), 101):
        saved.write_bytes(intact[:start] + bytes(len(intact[start : start + 32])) + intact[start + 32 :])
        try:
            found = load_checkpoint(saved)
        except RunError:
            refused += 1
        else:
            assert_same(found, some_checkpoint())
    assert refused > len(intact) // 200


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_pipe_in_its_place_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "last.pt")
    with pytest.raises(RunError, match=r"last\.pt: not a readable checkpoint .*it is a pipe, not a file"):
        load_checkpoint(tmp_path / "last.pt")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere\.pt: there is no such checkpoint"):
        load_checkpoint(tmp_path / "nowhere.pt")
    with pytest.raises(RunError, match=str(tmp_path)):
        load_checkpoint(tmp_path)


def test_a_failed_save_leaves_the_old_file_and_nothing_else(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_half_way(content: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr("torchreptile.training.checkpoint.torch.save", fails_half_way)
    with pytest.raises(RunError, match=r"last\.pt: cannot be saved \(no space left"):
        save_checkpoint(some_checkpoint(8), saved)
    assert os.listdir(saved.parent) == ["last.pt"]
    assert_same(load_checkpoint(saved), some_checkpoint(7))


def test_a_bare_pickle_is_refused_without_a_warning_of_torch(saved: Path) -> None:
    saved.write_bytes(pickle.dumps(Path("x"), protocol=4))
    with pytest.raises(RunError, match="refused, it holds more than tensors"):
        load_checkpoint(saved)


def test_saving_again_replaces(saved: Path) -> None:
    save_checkpoint(some_checkpoint(8), saved)
    assert_same(load_checkpoint(saved), some_checkpoint(8))
    assert os.listdir(saved.parent) == ["last.pt"]


def test_run_folder_create_and_read(tmp_path: Path) -> None:
    config = small_config(way=4)
    folder = RunFolder(tmp_path / "deep" / "run")
    with folder.locked(make=True):
        folder.create(config, {"torch": "x"})
    assert folder.config() == config
    assert folder.metrics() == []
    assert sorted(os.listdir(folder.path)) == [".lock", "config.json", "env.json", "metrics.jsonl"]


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_users_files_are_left_alone(tmp_path: Path) -> None:
    """A link in the place of a file of the run, and hidden files that only look like the run's temporary ones."""
    precious, folder = tmp_path / "precious", RunFolder(tmp_path / "run")
    precious.write_text("precious")
    folder.path.mkdir()
    for name in (".lock", "metrics.jsonl"):
        (folder.path / name).symlink_to(precious)
        with pytest.raises(RunError, match="it is a link"), folder.locked(), MetricsLog(folder.metrics_file, 0):
            pass
        (folder.path / name).unlink()
    mine = folder.path / ".notes.tmp"
    mine.write_text("mine")
    with folder.locked(), pytest.raises(RunError, match="run exists; name another folder"):
        folder.create(small_config(), {})
    assert (precious.read_text(), mine.read_text()) == ("precious", "mine")


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_pipes_in_a_run_folder_are_refused_at_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for file in (folder.config_file, folder.env_file):
        os.mkfifo(file)
    with pytest.raises(RunError, match="is not a run folder"):
        folder.config()
    with pytest.raises(RunError, match=r"env\.json: missing or damaged .*it is a pipe"):
        folder.environment()


def test_an_existing_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(RunError, match=f"{tmp_path} exists; name another folder"):
        RunFolder(tmp_path).create(small_config(), {})
    with pytest.raises(RunError, match="precious exists"):
        RunFolder(tmp_path / "precious").create(small_config(), {})
    with pytest.raises(RunError, match="cannot be used"), RunFolder(tmp_path / "precious" / "run").locked(make=True):
        pass
    assert os.listdir(tmp_path) == ["precious"]


def test_a_damaged_config_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(RunError, match="is not a run folder"):
        folder.config()
    for content in (b"", b"[]", b"{", b"\xff\xfe"):
        folder.config_file.write_bytes(content)
        with pytest.raises(RunError, match=r"config\.json: "):
            folder.config()


def test_deleting_a_damaged_config_is_advised_only_where_it_helps(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.config_file.write_text("{")
    save_checkpoint(some_checkpoint(), folder.last)
    with pytest.raises(RunError, match=r"config\.json: .*; delete it to use the settings of last\.pt"):
        folder.config()
    folder.last.write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"config\.json: ") as refused:
        folder.config()
    assert "delete" not in str(refused.value)


def test_a_metrics_line_cut_short_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics_file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert folder.metrics() == [{"step": 1}, {"step": 2}]
