"""What is meta-learned, and the meta-gradient that moves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from torchreptile.algorithms.optim.inner_loop import InnerState
from torchreptile.algorithms.optim.outer_optimizer import OuterState
from torchreptile.models.built_in import Params


@dataclass(frozen=True, eq=False)
class MetaState:
    """What is meta-learned, and the state of the optimisers.

    Attributes:
        params: phi, by name: the network's parameters, and any others that the algorithm meta-learns.
        inner: the inner optimiser's state carried from task to task.
        outer: the outer optimiser's state.
        averages: statistics gathered during training, such as BatchNorm's running averages, by name.
    """

    params: Params
    inner: InnerState
    outer: OuterState
    averages: Params = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        """Return all tensors of the state, in a fixed order."""
        inner = [*self.inner.v.values(), self.inner.steps]
        return [*self.params.values(), *inner, *self.outer.tensors(), *self.averages.values()]

    def mapped(self, change: Callable[[Tensor], Tensor]) -> MetaState:
        """Return the state with ``change`` applied to every tensor, such as to move or copy it."""
        params = {name: change(p) for name, p in self.params.items()}
        v = {name: change(v) for name, v in self.inner.v.items()}
        inner = replace(self.inner, v=v, steps=change(self.inner.steps))
        averages = {name: change(average) for name, average in self.averages.items()}
        return replace(self, params=params, inner=inner, outer=self.outer.mapped(change), averages=averages)


@dataclass(frozen=True, eq=False)
class MetaGradient:
    """The meta-gradient of one meta-batch of tasks.

    Attributes:
        gradient: by name, shaped like the parameters; the outer update moves them against it.
        inner: the inner optimiser's state after these tasks.
        loss: () mean training loss of the tasks, for the log.
        averages: the statistics of the state after these tasks, by name.
    """

    gradient: Params
    inner: InnerState
    loss: Tensor
    averages: Params = field(default_factory=dict)
