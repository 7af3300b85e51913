"""The global generators of torch, Python and NumPy, from which a custom network may draw: seeded, and put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RandomState:
    """A snapshot of the global generators.

    Attributes:
        cpu: the state of torch's generator on the CPU.
        cuda: the state of its generator on a GPU; None for a CPU.
        outside: the states of Python's and NumPy's generators.

    Example:
        >>> import torch
        >>> before = RandomState.now(torch.device("cpu"))
        >>> with before.restored():
        ...     first = torch.rand(2)
        >>> with before.restored():
        ...     print(torch.equal(first, torch.rand(2)))
        True
    """

    cpu: Tensor
    cuda: Tensor | None
    outside: tuple[Any, Any]

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        """Return the present states, of ``device`` as well if it is a GPU."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(torch.random.get_rng_state(), cuda, (random.getstate(), np.random.get_state()))

    def moved_since(self, device: torch.device) -> tuple[bool, bool]:
        """Return whether torch's generators, and whether Python's or NumPy's, have drawn numbers since the snapshot."""
        now = RandomState.now(device)
        of_torch = not torch.equal(now.cpu, self.cpu)
        if self.cuda is not None and now.cuda is not None:
            of_torch = of_torch or not torch.equal(now.cuda, self.cuda)
        python, numpy = now.outside
        outside = python != self.outside[0] or any(
            not np.array_equal(new, old) for new, old in zip(numpy, self.outside[1], strict=True)
        )
        return of_torch, outside

    def restore(self, device: torch.device) -> None:
        """Put the generators back to the snapshot."""
        torch.random.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)
        random.setstate(self.outside[0])
        np.random.set_state(self.outside[1])

    @contextmanager
    def restored(self, device: torch.device | None = None) -> Iterator[None]:
        """Draw from the snapshot on while the context lasts; afterwards the generators are as they were before it."""
        device = device or torch.device("cpu")
        outer = RandomState.now(device)
        self.restore(device)
        try:
            yield
        finally:
            outer.restore(device)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the global generators while the context lasts; afterwards they are as they were before it.

    Args:
        seed: 0 to 2**63 - 1; NumPy gets its lowest 32 bits.
        device: seeds the generator of this GPU as well.

    Example:
        >>> import random
        >>> with seeded(3):
        ...     first = random.random()
        >>> with seeded(3):
        ...     print(first == random.random())
        True
    """
    device = device or torch.device("cpu")
    outer = RandomState.now(device)
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        outer.restore(device)
