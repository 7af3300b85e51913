"""Who takes part."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes:
        family: who is compared: ours, or a library.
        variant: how; the script knows the words.
        script: what runs it, in this folder.
        environment: the interpreter it runs in: see environments.py.
        rules: see work.PROTOCOLS.
    """

    family: str
    variant: str
    script: str
    environment: str
    rules: str = "reptile"

    def __str__(self) -> str:
        """For people."""
        return f"{self.family} {self.variant}" + ("" if self.rules == "reptile" else f" ({self.rules})")


def _ours(execution: str, rules: str = "reptile") -> Contestant:
    return Contestant("torchreptile", execution, "with_torchreptile.py", "torchreptile", rules)


PEAK = _ours("peak")
"""Not a contestant: what the machine can do at most."""

REFERENCE = {rules: _ours("loop", rules) for rules in ("reptile", "full-batch")}
"""Whose losses the check compares with: the plainest of ours, one task after another through autograd."""

STANDARD = {rules: _ours("auto", rules) for rules in ("reptile", "full-batch")}
"""Who the table's last column compares with: what a user of ours gets without asking."""

JAX = [
    Contestant("jax", "-".join(words), "with_jax.py", "jax")
    for words in product(("vmap", "map", "loop"), ("conv", "patches"), ("scan", "unrolled"))
]

CONTESTANTS = [
    *STANDARD.values(),
    *(_ours(execution) for execution in ("native", "compiled", "loop", "grouped")),
    *JAX,
    *(Contestant("parallel-metalearn", backend, "with_metalearn.py", "metalearn", "full-batch")
      for backend in ("vmap", "sequential")),
    *(Contestant(library, tasks, f"with_{library}.py", "functional")
      for library, tasks in (("torchopt", "vmap"), ("torchopt", "loop"), ("higher", "loop"))),
]  # fmt: skip
