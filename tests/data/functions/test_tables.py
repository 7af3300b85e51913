"""Own functions from csv files: what is in them, how they are divided and standardised, and every refusal."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tests.functions import write_folder
from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import ConfigError, DataError
from torchreptile.data.functions.tables import Scale, Tables
from torchreptile.data.loading import load_functions


def task(path: Path, **changes: object) -> TaskConfig:
    return TaskConfig(**{"table": str(path), "way": 1, **changes})  # type: ignore[arg-type]


def stores(path: Path, **changes: object) -> dict[str, Tables]:
    splits = load_functions(task(path, **changes))
    return {part: splits.get(part) for part in ("train", "val", "test")}  # type: ignore[arg-type, misc]


def one_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_folder_is_divided_by_tasks_and_standardised_by_the_training_ones(tmp_path: Path) -> None:
    found = stores(write_folder(tmp_path / "plants"))
    assert {part: len(store) for part, store in found.items()} == {"train": 12, "val": 4, "test": 4}
    names = [name for store in found.values() for name in store.task_names]
    assert sorted(names) == [f"plant{number:02d}" for number in range(20)]
    train = found["train"]
    assert train.x.shape == (12 * 30, 1)
    assert (train.scale.inputs, train.scale.targets) == (("dose",), ("y",))
    for standard in (train.scale.standard_x(train.x), train.scale.standard_y(train.y)):
        torch.testing.assert_close(standard.mean(0), torch.zeros(1, dtype=torch.float64), rtol=0, atol=1e-9)
        torch.testing.assert_close(standard.std(0, correction=0), torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(train.scale.own_y(train.scale.standard_y(train.y)), train.y)
    assert all(store.scale == train.scale for store in found.values())
    assert Scale.from_json(json.loads(json.dumps(asdict(train.scale)))) == train.scale


def test_the_division_follows_from_its_seed_and_ratio(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "plants")
    assert stores(folder)["test"].task_names == stores(folder)["test"].task_names
    assert stores(folder)["test"].task_names != stores(folder, split_seed=1)["test"].task_names
    assert stores(folder)["train"].fingerprint != stores(folder, split_seed=1)["train"].fingerprint
    splits = load_functions(task(folder, split_ratio="0.5/0/0.5"))
    assert splits.val is None
    with pytest.raises(DataError, match="has no val tasks"):
        splits.get("val")


def test_one_file_tells_its_tasks_apart_by_a_column(tmp_path: Path) -> None:
    lines = "".join(f"{name},{i},{i * i},{i + 1},{2 * i}\n" for name in "abcde" for i in range(3))
    path = one_file(tmp_path / "all.csv", "task,x1,y1,x2,y2\n\n" + lines)  # an empty line says nothing
    train = stores(path)["train"]
    assert (train.scale.inputs, train.scale.targets) == (("x1", "x2"), ("y1", "y2"))
    torch.testing.assert_close(train.x[:3], torch.tensor([[0.0, 1], [1, 2], [2, 3]], dtype=torch.float64))
    torch.testing.assert_close(train.y[:3], torch.tensor([[0.0, 0], [1, 2], [4, 4]], dtype=torch.float64))
    other = stores(path, targets="x2, y1")["train"]
    assert (other.scale.inputs, other.scale.targets) == (("x1", "y2"), ("y1", "x2"))


def test_a_column_y_in_capitals_is_predicted_unless_there_is_a_small_one(tmp_path: Path) -> None:
    rows = "".join(f"{task},{n},{n * n},{n + 7}\n" for task in "abcde" for n in range(30))
    found = stores(one_file(tmp_path / "capital.csv", "Task,dose,Y,note\n" + rows))["train"]
    assert (found.scale.inputs, found.scale.targets) == (("dose", "note"), ("Y",))
    assert sorted(set(found.y.flatten().tolist())) == [float(n * n) for n in range(30)]
    both = stores(one_file(tmp_path / "both.csv", "task,dose,Y,y\n" + rows))["train"]
    assert (both.scale.inputs, both.scale.targets) == (("dose", "Y"), ("y",))


def test_the_separator_of_a_table_is_named_where_it_is_no_comma(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1 has 'task;x;y'; its columns are separated by semicolons"):
        stores(one_file(tmp_path / "t.csv", "task;x;y\na;1;2\n"))


def test_without_a_y_the_last_column_is_predicted_and_a_constant_one_stays_finite(tmp_path: Path) -> None:
    lines = "".join(f"{name},7,{i}\n" for name in "abcde" for i in range(3))
    train = stores(one_file(tmp_path / "all.csv", "task,room,yield\n" + lines))["train"]
    assert train.scale.targets == ("yield",)
    assert torch.equal(train.scale.standard_x(train.x), torch.zeros_like(train.x))


GOOD = "a,1,2\nb,1,2\nc,1,2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task,x,y\na,1,2\na,x,2\n", r"all.csv: line 3 has 'x' in column x; it must be a finite number"),
        ("task,x,y\na,1,2\na,1,nan\n", r"all.csv: line 3 has 'nan' in column y; it must be a finite number"),
        ("task,x,y\na,1,inf\n", r"all.csv: line 2 has 'inf' in column y"),
        ("task,x,y\na,1,\n", r"all.csv: line 2 has '' in column y"),
        ("task,x,y\na,1,2\nb,1\n", r"all.csv: line 3 has 2 columns, but line 1 names 3"),
        ("task,x,y\na,1,2,3\n", r"all.csv: line 2 has 4 columns, but line 1 names 3"),
        ("task,x,y\n,1,2\n", r"all.csv: line 2 names no task"),
        ("task,x,y\n", r"all.csv: has no rows below its first line"),
        ("", r"all.csv: line 1 has nothing; one file for all tasks needs a column task"),
        ("x,y\n1,2\n", r"all.csv: line 1 has 'x', 'y'; one file for all tasks needs a column task"),
        ("task,y\na,2\n", r"line 1 has 'task', 'y'; at least one input and one target are needed"),
        ("task,x,x,y\na,1,1,2\n", r"it must name every column, each once"),
        ("task,x,\na,1,2\n", r"it must name every column, each once"),
        ('task,x,y\na,"1,2\n', r"all.csv: not a csv file in UTF-8"),
        ("task,y1,y2\n" + GOOD, r"y1, y2 are all to be predicted; an input is needed"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        stores(one_file(tmp_path / "all.csv", text))


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"--table .*nowhere does not exist"):
        stores(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"--table .*notes.txt is neither a folder nor a .csv file"):
        stores(one_file(tmp_path / "notes.txt", "hello"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no .csv files; put one per task there"):
        stores(tmp_path / "empty")
    folder = write_folder(tmp_path / "plants", tasks=5)
    one_file(folder / "zz.csv", "dose,z\n1,2\n")
    with pytest.raises(DataError, match=r"zz.csv: line 1 has the columns dose, z, but plant00.csv has dose, y"):
        stores(folder)
    (folder / "zz.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"zz.csv: not a csv file in UTF-8"):
        stores(folder)
    with pytest.raises(DataError, match="there is no column z to predict; it has x, y"):
        stores(one_file(tmp_path / "all.csv", "task,x,y\n" + GOOD), targets="z")


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="data is a and table is b; give one of them"):
        TaskConfig(data="a", table="b", way=1)
    with pytest.raises(ConfigError, match="dataset is table, but table is not set"):
        TaskConfig(dataset="table", way=1)
    with pytest.raises(ConfigError, match="targets is y, but it applies to your own functions only"):
        TaskConfig(targets="y")
    with pytest.raises(ConfigError, match="way is 5, but the tasks of b are functions"):
        TaskConfig(table="b")
    with pytest.raises(ConfigError, match="grey is True, but it applies to your own images only"):
        TaskConfig(table="b", way=1, grey=True)
    with pytest.raises(ConfigError, match="exclude_duplicates is for images"):
        TaskConfig(table="b", way=1, exclude_duplicates=True)


def test_other_columns_than_the_trainings_are_refused(tmp_path: Path) -> None:
    ours = stores(write_folder(tmp_path / "plants"))["test"]
    other = stores(one_file(tmp_path / "all.csv", "task,x,y\n" + GOOD))["train"]
    with pytest.raises(DataError, match=r"has the columns dose,->,y, but the training had x,->,y"):
        ours.scaled_by(other.scale)
    assert ours.scaled_by(ours.scale).scale == ours.scale
