"""The contestants: torchreptile's executions and other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Contestant:
    """One implementation of the workload.

    Attributes:
        family: name of the library.
        variant: variant, as the script understands it.
        script: script of this folder that runs it.
        environment: environment that it runs in, see environments.py.
        rules: see work.PROTOCOLS.
    """

    family: str
    variant: str
    script: str
    environment: str
    rules: str = "reptile"

    def __str__(self) -> str:
        """Name family and variant, and rules other than Reptile's."""
        return f"{self.family} {self.variant}" + ("" if self.rules == "reptile" else f" ({self.rules})")


def _ours(execution: str, rules: str = "reptile") -> Contestant:
    """Return torchreptile with an execution."""
    return Contestant("torchreptile", execution, "with_torchreptile.py", "torchreptile", rules)


PEAK = _ours("peak")
"""Not a contestant: the machine's peak speed."""

REFERENCE = {rules: _ours("loop", rules) for rules in ("reptile", "full-batch")}
"""The contestants whose losses the check compares with: one task after another through autograd."""

STANDARD = {rules: _ours("auto", rules) for rules in ("reptile", "full-batch")}
"""The contestants that the table's last column compares with: torchreptile's default execution."""

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
