"""The papers' experiments by name: every row of their tables and the Reptile paper's figures, each one command."""

from __future__ import annotations

from torchreptile.core.errors import ConfigError
from torchreptile.experiments.reproduce.gradient_combinations import COMBINATIONS
from torchreptile.experiments.reproduce.experiment import Experiment as Experiment
from torchreptile.experiments.reproduce.minibatch_overlap import OVERLAP
from torchreptile.experiments.reproduce.table_rows import ROWS
from torchreptile.experiments.reproduce.sine import WAVES

EXPERIMENTS: dict[str, Experiment] = {one.name: one for one in (*ROWS, WAVES, COMBINATIONS, OVERLAP)}


def experiment(name: str) -> Experiment:
    """The experiment of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in EXPERIMENTS:
        close = [known for known in EXPERIMENTS if name and (name in known or known in name)]
        what = f"did you mean {' or '.join(close[:4])}?" if close else "reptile reproduce --list names them"
        raise ConfigError(f"unknown experiment {name}; {what}")
    return EXPERIMENTS[name]
