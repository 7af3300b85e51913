"""First-order MAML as in the MAML paper (Finn, Abbeel, Levine 2017): MAML without second derivatives."""

from __future__ import annotations

from typing import final

from torch import Tensor

from torchreptile.algorithms.gradient_based import take_batches
from torchreptile.algorithms.maml_base import MAMLBase
from torchreptile.algorithms.meta_state import MetaState
from torchreptile.algorithms.optim.differentiable_sgd import descend
from torchreptile.algorithms.task_gradient import TaskSums
from torchreptile.data.episodes import Episodes
from torchreptile.models.built_in import Params


@final
class FirstOrderMAML(MAMLBase):
    """First-order MAML: the gradient of the query loss at the adapted weights is applied to the initial weights.

        phi <- phi - outer step size * mean over tasks of d L_query(phi_task) / d phi_task

    The gradients of the inner steps count as constants, so no graph of the steps is needed. Finn, Abbeel, Levine 2017
    (arXiv 1703.03400), section 5.2. :class:`~torchreptile.algorithms.foml.FOML` is the variant of the Reptile paper,
    with Reptile's inner optimiser and outer update.
    """

    second_order = False

    def gradient(self, params: Params, episodes: Episodes, drawn: Tensor) -> TaskSums:
        """Return the gradient of the query losses at the adapted weights, summed over tasks."""
        batches = list(take_batches(episodes.support_x, episodes.support_y, drawn))
        adapted = descend(self.inner_loop, params, self.rates(params), batches, len(episodes))
        losses, at_end = self.query_gradient(adapted, episodes.query_x, episodes.query_y)
        return TaskSums({name: g.sum(0) for name, g in at_end.items()}, losses.sum())

    def step_bytes(self, state: MetaState, episodes: Episodes) -> int:
        """Return the bytes that the graph of an inner step takes: 0, there is none."""
        return 0
