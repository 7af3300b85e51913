"""MAML (Finn, Abbeel, Levine 2017): meta-learn weights from which a few SGD steps give a low loss on the queries."""

from __future__ import annotations

from typing import final

from torchreptile.algorithms.maml_base import MAMLBase


@final
class MAML(MAMLBase):
    """MAML: differentiate the query loss after the inner steps with respect to the weights before them.

        phi_task = phi after inner steps of SGD, each phi <- phi - inner lr * d L_support(phi) / d phi
        phi <- phi - outer step size * mean over tasks of d L_query(phi_task) / d phi

    The derivative goes through the inner steps (second order); the outer optimiser is usually Adam. Finn, Abbeel,
    Levine 2017 (arXiv 1703.03400), algorithm 2. The base class does all of this.
    """
