"""Algorithms of the user's own, named as ``FILE.py:CLASS``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module

from torchreptile.algorithms.base import Algorithm
from torchreptile.algorithms.build import registered_class, use_algorithm
from torchreptile.core.config import Config
from torchreptile.core.errors import ConfigError
from torchreptile.core.user_code import load_from_file, names_a_file
from torchreptile.data.custom import use_dataset_file


def load_algorithm(named: str) -> str:
    """Load an algorithm class from a Python file and make it known under its row's name.

    The file is run as Python code: name only one you trust.

    Args:
        named: ``FILE.py:CLASS``, a subclass of :class:`Algorithm` with an ``AlgorithmRow`` as its attribute ``row``.

    Returns:
        The name that settings know it by.

    Raises:
        ConfigError: the file fails, or the class is no such algorithm.
    """
    found = load_from_file("algorithm", named)
    if not (isinstance(found, type) and issubclass(found, Algorithm)):
        raise ConfigError(f"algorithm {named}: it must be a subclass of torchreptile.Algorithm")
    name = use_algorithm(found)
    _files[name] = os.path.abspath(named)
    return name


@dataclass(frozen=True)
class CustomCode:
    """Where another process finds the custom algorithm and the custom data set of a training; empty for built-in ones.

    Attributes:
        algorithm: ``FILE.py:CLASS``, or ``module:CLASS``.
        dataset: ``FILE.py:FUNCTION``.
    """

    algorithm: str = ""
    dataset: str = ""

    @staticmethod
    def of(config: Config) -> CustomCode:
        """Return the code that a training with these settings needs.

        Raises:
            ConfigError: it is defined where no other process can import it.

        Example:
            >>> CustomCode.of(Config())
            CustomCode(algorithm='', dataset='')
        """
        name, dataset = config.method.algorithm, config.task.dataset
        kind = registered_class(name)
        where = _files.get(name, "")
        if kind is not None and not where:
            where = f"{kind.__module__}:{kind.__qualname__}"
            if kind.__module__ == "__main__" or "<locals>" in kind.__qualname__:
                raise ConfigError(
                    f"algorithm {name} is the class {kind.__qualname__} of the script or notebook that is run, which "
                    f"other processes cannot import; put it into a file and load it: load_algorithm('mine.py:"
                    f"{kind.__name__}'), or --algorithm mine.py:{kind.__name__}"
                )
        return CustomCode(where, dataset if names_a_file(dataset) else "")

    def load(self) -> None:
        """Make the code known to this process."""
        if names_a_file(self.algorithm):
            load_algorithm(self.algorithm)
        elif self.algorithm:
            module, _, name = self.algorithm.partition(":")
            use_algorithm(getattr(import_module(module), name))
        if self.dataset:
            use_dataset_file(self.dataset)


_files: dict[str, str] = {}  # FILE.py:CLASS, with the absolute path, by the name of the algorithm
