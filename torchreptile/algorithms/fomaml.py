"""First-order MAML as the MAML paper has it: the gradient of the queries' loss at the adapted weights, taken as it is.

    phi <- phi - step size * mean over tasks of d L_query(phi_task) / d phi_task

The inner steps' own gradients count as constants (Finn, Abbeel, Levine 2017, section 5.2). ``foml`` is what the Reptile
paper compares with instead: the last inner step's change, under Reptile's inner optimiser and outer update.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from torchreptile.algorithms.base import MetaState
from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.algorithms.maml_base import MAMLBase
from torchreptile.algorithms.optim.differentiable_sgd import descend
from torchreptile.algorithms.optim.inner_loop import Params
from torchreptile.algorithms.task_gradient import TaskSums
from torchreptile.data.episodes import Episodes


@final
class FirstOrderMAML(MAMLBase):
    """No way back through the inner steps, so no graph of them either."""

    second_order = False

    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> TaskSums:
        """At the adapted weights."""
        batches = list(take_batches(episodes.support_x, episodes.support_y, drawn))
        adapted = descend(self.inner_loop, params, self.rates(params), batches, len(episodes))
        losses, at_end = self.query_gradient(adapted, episodes.query_x, episodes.query_y)
        return TaskSums({name: g.sum(0) for name, g in at_end.items()}, losses.sum())

    def step_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """No graph is kept."""
        return 0
