"""Own functions: ``--table FOLDER`` or ``--table FILE.csv``; every row of a table is a point of a function.

A folder holds one csv file per task; a single csv file tells its tasks apart by a column ``task``. The first line names
the columns. Tasks, never the rows of a task, are divided into train, val and test.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchreptile.core.config import TaskConfig
from torchreptile.core.errors import DataError
from torchreptile.data.functions.csv_rows import Row, read_rows
from torchreptile.data.splits import SPLITS, MissingSplit, Split, SplitsOf, by_ratio

TASK = "task"  # the column that tells tasks apart


@dataclass(frozen=True)
class Scale:
    """How tables are standardised: by mean and standard deviation over the rows of all training tasks.

    Attributes:
        inputs, targets: the columns' names.
        x_mean, x_deviation: of the inputs; a column that never changes has the deviation 1.
        y_mean, y_deviation: of the targets.
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    x_mean: tuple[float, ...]
    x_deviation: tuple[float, ...]
    y_mean: tuple[float, ...]
    y_deviation: tuple[float, ...]

    @classmethod
    def over(cls, inputs: tuple[str, ...], targets: tuple[str, ...], x: Tensor, y: Tensor) -> Scale:
        """From (N, inputs) and (N, targets) float64."""
        return cls(inputs, targets, *(tuple(part.tolist()) for part in (*_moments(x), *_moments(y))))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Scale:
        """What ``dataclasses.asdict`` and JSON made of it."""
        return cls(**{name: tuple(values) for name, values in content.items()})

    def standard_x(self, x: Tensor) -> Tensor:
        """(..., inputs) in the table's units -> mean 0, deviation 1."""
        return (x - x.new_tensor(self.x_mean)) / x.new_tensor(self.x_deviation)

    def standard_y(self, y: Tensor) -> Tensor:
        """(..., targets) in the table's units -> mean 0, deviation 1."""
        return (y - y.new_tensor(self.y_mean)) / y.new_tensor(self.y_deviation)

    def own_x(self, x: Tensor) -> Tensor:
        """Back to the table's units."""
        return x * x.new_tensor(self.x_deviation) + x.new_tensor(self.x_mean)

    def own_y(self, y: Tensor) -> Tensor:
        """Back to the table's units."""
        return y * y.new_tensor(self.y_deviation) + y.new_tensor(self.y_mean)


@dataclass(frozen=True, eq=False)
class Tables:
    """Points of many functions.

    Attributes:
        x: (N, inputs) float64 in the table's units, every task's rows one after another.
        y: (N, targets) likewise.
        task_sizes: (K,) int64, how many rows each task has; they add up to N.
        task_names: K names, for people.
        name: what the data are called.
        scale: what they are standardised by when tasks are drawn: those to train on, of any split.
    """

    x: Tensor
    y: Tensor
    task_sizes: Tensor
    task_names: tuple[str, ...]
    name: str
    scale: Scale

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(inputs,) of a point."""
        return (self.x.shape[1],)

    @property
    def targets(self) -> int:
        """Numbers to predict."""
        return self.y.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the points are."""
        return self.x.device

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes, scale and points: equal exactly when the data are equal."""
        digest = hashlib.sha256()
        head = [list(self.task_names), self.task_sizes.tolist(), self.scale.inputs, self.scale.targets]
        digest.update(json.dumps(head).encode())
        for tensor in (self.x, self.y):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """The number of tasks."""
        return len(self.task_names)

    def to(self, device: torch.device | str) -> Tables:
        """The same with its tensors on ``device``."""
        x, y, sizes = (tensor.to(device) for tensor in (self.x, self.y, self.task_sizes))
        return replace(self, x=x, y=y, task_sizes=sizes)

    def scaled_by(self, scale: Scale) -> Tables:
        """The same, standardised as other data were that a network was trained on.

        Raises:
            DataError: the columns are others.
        """
        ours, theirs = (",".join((*s.inputs, "->", *s.targets)) for s in (self.scale, scale))
        if ours != theirs:
            raise DataError(f"{self.name} has the columns {ours}, but the training had {theirs}")
        return replace(self, scale=scale)


def split(task: TaskConfig) -> SplitsOf[Tables]:
    """The own functions that ``task.table`` names, divided by ``split_ratio`` and ``split_seed``.

    Raises:
        DataError: the files cannot be used; file and line are named.
    """
    root = Path(task.table)
    rows = read_rows(root, TASK)
    inputs, targets = _columns(root, rows[0].columns, task.targets)
    tasks: dict[str, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row.task, []).append(row)
    names = sorted(tasks)
    parts = by_ratio(names, task.shares, task.split_seed)
    if not parts["train"]:
        raise DataError(f"--table {root}: its {len(names)} tasks divided {task.split_ratio} leave none to train on")

    def points(part: list[str], columns: tuple[str, ...]) -> Tensor:
        taken = [row for name in part for row in tasks[name]]
        return torch.tensor([[row.values[column] for column in columns] for row in taken], dtype=torch.float64)

    train = sorted(parts["train"])
    scale = Scale.over(inputs, targets, points(train, inputs), points(train, targets))

    def source(part: Split) -> Tables | MissingSplit:
        its = sorted(parts[part])
        if not its:
            return MissingSplit(f"{root} has no {part} tasks; divide its {len(names)} otherwise (--split-ratio)")
        sizes = torch.tensor([len(tasks[name]) for name in its])
        return Tables(points(its, inputs), points(its, targets), sizes, tuple(its), f"{task.title} ({part})", scale)

    return SplitsOf(*(source(part) for part in SPLITS))


def _columns(root: Path, columns: tuple[str, ...], named: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Inputs and targets, in the order of the table."""
    wanted = [name.strip() for name in named.split(",") if name.strip()]
    if missing := [name for name in wanted if name not in columns]:
        raise DataError(f"--table {root}: there is no column {missing[0]} to predict; it has {', '.join(columns)}")
    targets = wanted or [name for name in columns if name == "y" or (name[0] == "y" and name[1:].isdigit())]
    targets = targets or [columns[-1]]
    inputs = tuple(name for name in columns if name not in targets)
    if not inputs:
        raise DataError(f"--table {root}: {', '.join(columns)} are all to be predicted; an input is needed")
    return inputs, tuple(name for name in columns if name in targets)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column, 1 for one that never changes."""
    deviation, changes = values.std(0, correction=0), values.amax(0) > values.amin(0)
    return values.mean(0), torch.where(changes & (deviation > 0), deviation, torch.ones_like(deviation))
