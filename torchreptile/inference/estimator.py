"""The part of scikit-learn's estimator interface that classifiers and regressors share: settings by name."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any, Self

from torch import nn

from torchreptile.core.errors import ConfigError
from torchreptile.models.blueprint import materialise


@dataclass(frozen=True, eq=False)
class CopyOf:
    """A network that is a copy of a module; unlike a function made on the spot, it can be pickled.

    Attributes:
        module: the module, which is not changed, unless it has lazy layers: these get their weights.
    """

    module: nn.Module

    @property
    def __name__(self) -> str:
        """The class of the module, for messages."""
        return type(self.module).__name__

    def __call__(self, shape: Any, outputs: int) -> nn.Module:
        """Return a copy; its inputs and outputs are those of the module."""
        materialise(self.module, shape)
        return copy.deepcopy(self.module)


class Estimator:
    """An estimator whose ``__init__`` arguments are attributes of the same names."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name; ``deep`` has no effect, as no setting is an estimator."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **changes: Any) -> Self:
        """Change settings by name; they take effect at the next ``fit``.

        Raises:
            ConfigError: a setting does not exist.
        """
        known = self.get_params()
        for name, value in changes.items():
            if name not in known:
                raise ConfigError(f"unknown setting {name}; the settings are {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """Return the class with ``weights`` and every setting that is not the default."""
        parameters = inspect.signature(type(self)).parameters
        shown = [f"{n}={v!r}" for n, v in self.get_params().items() if n == "weights" or v != parameters[n].default]
        return f"{type(self).__name__}({', '.join(shown)})"
