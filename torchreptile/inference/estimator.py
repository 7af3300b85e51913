"""What scikit-learn's manners ask of every estimator: settings by name, to be read, changed and printed."""

from __future__ import annotations

import inspect
from typing import Any, Self

from torchreptile.core.errors import ConfigError


class Estimator:
    """Keeps the arguments of its ``__init__`` as attributes of the same names."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name, as scikit-learn asks for them; none of them holds others, so ``deep`` says nothing."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **changes: Any) -> Self:
        """Change settings by name; they count from the next ``fit``.

        Raises:
            ConfigError: there is no such setting.
        """
        known = self.get_params()
        for name, value in changes.items():
            if name not in known:
                raise ConfigError(f"unknown setting {name}; the settings are {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """The settings that are not the defaults."""
        parameters = inspect.signature(type(self)).parameters
        told = [f"{n}={v!r}" for n, v in self.get_params().items() if n == "weights" or v != parameters[n].default]
        return f"{type(self).__name__}({', '.join(told)})"
