"""MAML: learn the weights from which a few SGD steps on the support set label the queries best.

    phi <- phi - step size * mean over tasks of d L_query(phi_task) / d phi

where phi_task is phi after the inner steps, and the derivative goes through them. Finn, Abbeel, Levine 2017, algorithm
2; all of it is what the frame does.
"""

from __future__ import annotations

from typing import final

from torchreptile.algorithms.maml_base import MAMLBase


@final
class MAML(MAMLBase):
    """Second order, one inner learning rate."""
