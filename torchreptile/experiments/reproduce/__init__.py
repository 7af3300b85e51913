"""The papers' experiments by name: the rows of their tables and the Reptile paper's figures (``reptile reproduce``)."""

from __future__ import annotations

from torchreptile.core.errors import ConfigError
from torchreptile.experiments.reproduce.gradient_combinations import COMBINATIONS
from torchreptile.experiments.reproduce.experiment import Experiment as Experiment
from torchreptile.experiments.reproduce.minibatch_overlap import OVERLAP
from torchreptile.experiments.reproduce.table_rows import ROWS
from torchreptile.experiments.reproduce.sine import WAVES

EXPERIMENTS: dict[str, Experiment] = {one.name: one for one in (*ROWS, WAVES, COMBINATIONS, OVERLAP)}


def find_experiment(name: str) -> Experiment:
    """Return the experiment called ``name``.

    Raises:
        ConfigError: no experiment has this name.

    Example:
        >>> find_experiment("sine").source
        'Nichol et al. 2018, section 4'
    """
    if name not in EXPERIMENTS:
        close = [known for known in EXPERIMENTS if name and (name in known or known in name)]
        hint = f"did you mean {' or '.join(close[:4])}?" if close else "reptile reproduce --list names them"
        raise ConfigError(f"unknown experiment {name}; {hint}")
    return EXPERIMENTS[name]
