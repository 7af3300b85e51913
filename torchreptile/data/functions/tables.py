"""The user's own functions: ``--table FOLDER`` or ``--table FILE.csv``; every row of a table is a point of a function.

A folder holds one csv file per task; a single csv file has a column ``task``. The first line names the columns. Tasks,
never the rows of a task, are divided into train, val and test.
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

TASK = "task"  # the column with the name of the task


@dataclass(frozen=True)
class Scale:
    """The standardisation of tables, by mean and standard deviation over the rows of all training tasks.

    Attributes:
        inputs: names of the input columns.
        targets: names of the target columns.
        x_mean: means of the inputs.
        x_deviation: standard deviations of the inputs; 1 for a constant column.
        y_mean: means of the targets.
        y_deviation: standard deviations of the targets; 1 for a constant column.

    Example:
        >>> x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [5.0]])
        >>> scale = Scale.over(("dose",), ("y",), x, y)
        >>> scale.x_mean, scale.x_deviation, scale.y_deviation
        ((1.0,), (1.0,), (1.0,))
        >>> scale.own_x(scale.standard_x(x)).tolist()
        [[0.0], [2.0]]
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    x_mean: tuple[float, ...]
    x_deviation: tuple[float, ...]
    y_mean: tuple[float, ...]
    y_deviation: tuple[float, ...]

    @classmethod
    def over(cls, inputs: tuple[str, ...], targets: tuple[str, ...], x: Tensor, y: Tensor) -> Scale:
        """Compute the standardisation from rows.

        Args:
            inputs: names of the input columns.
            targets: names of the target columns.
            x: (N, inputs) float64.
            y: (N, targets) float64.
        """
        return cls(inputs, targets, *(tuple(part.tolist()) for part in (*_moments(x), *_moments(y))))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Scale:
        """Restore the standardisation from ``dataclasses.asdict`` read back from JSON."""
        return cls(**{name: tuple(values) for name, values in content.items()})

    def standard_x(self, x: Tensor) -> Tensor:
        """Standardise (..., inputs) from the table's units to mean 0 and deviation 1."""
        return (x - x.new_tensor(self.x_mean)) / x.new_tensor(self.x_deviation)

    def standard_y(self, y: Tensor) -> Tensor:
        """Standardise (..., targets) from the table's units to mean 0 and deviation 1."""
        return (y - y.new_tensor(self.y_mean)) / y.new_tensor(self.y_deviation)

    def own_x(self, x: Tensor) -> Tensor:
        """Return (..., inputs) from standardised values to the table's units."""
        return x * x.new_tensor(self.x_deviation) + x.new_tensor(self.x_mean)

    def own_y(self, y: Tensor) -> Tensor:
        """Return (..., targets) from standardised values to the table's units."""
        return y * y.new_tensor(self.y_deviation) + y.new_tensor(self.y_mean)


@dataclass(frozen=True, eq=False)
class Tables:
    """Points of many functions, in memory.

    Attributes:
        x: (N, inputs) float64 in the table's units, the rows of each task one after another.
        y: (N, targets) float64 in the table's units, in the same order.
        task_sizes: (K,) int64, the number of rows of each task; they add up to N.
        task_names: the K names of the tasks.
        name: name of the data, used in messages.
        scale: the standardisation applied when tasks are drawn; in every split, that of the training tasks.
    """

    x: Tensor
    y: Tensor
    task_sizes: Tensor
    task_names: tuple[str, ...]
    name: str
    scale: Scale

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (inputs,) of an input."""
        return (self.x.shape[1],)

    @property
    def targets(self) -> int:
        """How many numbers to predict per point."""
        return self.y.shape[1]

    @property
    def device(self) -> torch.device:
        """The device of the points."""
        return self.x.device

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, sizes, columns and points, in hexadecimal; equal exactly when the data are equal."""
        digest = hashlib.sha256()
        head = [list(self.task_names), self.task_sizes.tolist(), self.scale.inputs, self.scale.targets]
        digest.update(json.dumps(head).encode())
        for tensor in (self.x, self.y):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        """Return the number of tasks."""
        return len(self.task_names)

    def to(self, device: torch.device | str) -> Tables:
        """Return the tables with their tensors on ``device``."""
        x, y, sizes = (tensor.to(device) for tensor in (self.x, self.y, self.task_sizes))
        return replace(self, x=x, y=y, task_sizes=sizes)

    def scaled_by(self, scale: Scale) -> Tables:
        """Return the tables with the standardisation of the data that a network was trained on.

        Raises:
            DataError: the columns differ from those of the training.
        """
        found, trained_on = (",".join((*s.inputs, "->", *s.targets)) for s in (self.scale, scale))
        if found != trained_on:
            raise DataError(f"{self.name} has the columns {found}, but the training had {trained_on}")
        return replace(self, scale=scale)


def split(task: TaskConfig) -> SplitsOf[Tables]:
    """Read the functions of ``task.table`` and divide them by ``split_ratio`` and ``split_seed``.

    Raises:
        DataError: the files cannot be used; the message names file and line.
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
        selected = [row for name in part for row in tasks[name]]
        return torch.tensor([[row.values[column] for column in columns] for row in selected], dtype=torch.float64)

    train = sorted(parts["train"])
    scale = Scale.over(inputs, targets, points(train, inputs), points(train, targets))

    def source(part: Split) -> Tables | MissingSplit:
        members = sorted(parts[part])
        if not members:
            return MissingSplit(f"{root} has no {part} tasks; divide its {len(names)} differently (--split-ratio)")
        sizes = torch.tensor([len(tasks[name]) for name in members])
        x, y = points(members, inputs), points(members, targets)
        return Tables(x, y, sizes, tuple(members), f"{task.title} ({part})", scale)

    return SplitsOf(*(source(part) for part in SPLITS))


def _columns(root: Path, columns: tuple[str, ...], named: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the input and the target columns, in the order of the table; ``named`` is the setting ``targets``."""
    wanted = [name.strip() for name in named.split(",") if name.strip()]
    if missing := [name for name in wanted if name not in columns]:
        raise DataError(f"--table {root}: there is no column {missing[0]} to predict; it has {', '.join(columns)}")
    named_y = [name for name in columns if name.lower() == "y" or (name[0] in "yY" and name[1:].isdigit())]
    targets = wanted or [name for name in named_y if name[0] == "y"] or named_y or [columns[-1]]
    inputs = tuple(name for name in columns if name not in targets)
    if not inputs:
        raise DataError(f"--table {root}: {', '.join(columns)} are all to be predicted; an input is needed")
    return inputs, tuple(name for name in columns if name in targets)


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each column; the deviation of a constant column is 1."""
    deviation, changes = values.std(0, correction=0), values.amax(0) > values.amin(0)
    return values.mean(0), torch.where(changes & (deviation > 0), deviation, torch.ones_like(deviation))
