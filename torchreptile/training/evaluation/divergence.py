"""Messages for adaptation, or a network, that ends in numbers that are not finite."""

from __future__ import annotations

from torchreptile.core.config import Config
from torchreptile.core.errors import DivergedError
from torchreptile.training.evaluation.record import Evaluation
from torchreptile.training.evaluation.results import Measured


class DivergedEvaluationError(DivergedError):
    """An evaluation in which predictions are not finite numbers.

    Attributes:
        evaluation: the evaluation, in whose result such predictions count as wrong.
    """

    evaluation: Evaluation


def cause(config: Config, inner_lr: str = "inner_lr", steps: str = "eval_steps") -> str:
    """Return why predictions of these settings are not finite numbers, and what to try, as the end of a message.

    Args:
        config: settings of the adaptation.
        inner_lr: what the user knows the inner learning rate as.
        steps: what the user knows the number of inner steps as.
    """
    taken = config.evaluation.eval_steps if config.row.adapts_by_steps else config.evaluation.finetune_steps
    if not taken:
        return (
            "no inner steps were taken, so the weights or the inputs are too large for the network; check them, or "
            "train again with a smaller outer step size"
        )
    if not config.adapts_by_inner_lr:
        return f"{taken} inner steps at meta-learned rates; try a smaller {steps}, or train again"
    rate = config.inner.inner_lr
    smaller = f"try a smaller {inner_lr}, such as {rate / 10:g}, or fewer {steps}"
    return f"{inner_lr} is {rate:g} and {steps} {taken}; {smaller}"


def count(result: Measured, kind: str = "") -> str:
    """Return in how many episodes predictions are not finite numbers, as the start of a message.

    Args:
        result: what was measured.
        kind: of the episodes, such as "validation ".
    """
    episodes = f"{result.diverged:,} of {result.episodes:,} {kind}episodes"
    return f"diverged in {episodes}, where predictions are not finite numbers"


def diverged(evaluation: Evaluation) -> DivergedEvaluationError:
    """Return the error for an evaluation with predictions that are not finite numbers."""
    what, why = count(evaluation.result), cause(evaluation.config)
    error = DivergedEvaluationError(f"{evaluation.source}: {what}: {why}")
    error.evaluation = evaluation
    return error
