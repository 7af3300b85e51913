"""Experiment: ten combinations of the first four inner gradients as meta-gradients, with plain SGD as inner optimiser.

Nichol, Achiam, Schulman 2018, section 6.2 and its figure. With plain SGD the change after k inner steps is the sum of
k gradients, so all ten are Reptile or first-order MAML with k inner steps on mini-batches that share no image; means
divide the outer step size by k. The inner lr of 0.003 applies to the sum of a mini-batch's losses, as in the paper's
code, which equals 0.075 for their mean; 0.003 for the mean would train next to nothing. The split scheme is
``vinyals``, because the original one has no validation classes to monitor on.
"""

from __future__ import annotations

from torchreptile.core.config import Config
from torchreptile.core.config.presets import FIVE_WAY
from torchreptile.experiments.reproduce.experiment import Arm, Experiment

PER_STEP = 5  # images per class in an inner mini-batch of 25
LARGEST = 4  # gradients

SETTINGS = FIVE_WAY.replace(
    shots=5, inner_optimizer="sgd", inner_loss="sum", inner_lr=3e-3, inner_batch=25, meta_batch=1, outer_steps=40_000,
    outer_step_size=0.25, eval_steps=5, eval_batch=25, split_scheme="vinyals",
)  # fmt: skip


def _arm(name: str, label: str, gradients: int, algorithm: str, divided_by: int = 1) -> Arm:
    """Return the training of one combination of ``gradients`` inner gradients."""
    config: Config = SETTINGS.replace(
        algorithm=algorithm,
        inner_steps=gradients,
        train_shots=PER_STEP * gradients,
        outer_step_size=SETTINGS.outer.outer_step_size / divided_by,
    )
    return Arm.of(name, label, config)


def _arms() -> list[Arm]:
    """Return the ten combinations."""
    arms = [_arm("last-of-1", "g1", 1, "reptile")]
    for k in range(2, LARGEST + 1):
        terms = " + ".join(f"g{number}" for number in range(1, k + 1))
        arms.append(_arm(f"last-of-{k}", f"g{k}", k, "foml"))
        arms.append(_arm(f"mean-of-{k}", f"({terms}) / {k}", k, "reptile", divided_by=k))
        arms.append(_arm(f"sum-of-{k}", terms, k, "reptile"))
    return arms


COMBINATIONS = Experiment(
    name="gradient-combinations",
    what="Omniglot, 5-shot 5-way: updates from sums, means and the last of the first four inner gradients",
    source="Nichol et al. 2018, section 6.2",
    kind="combinations",
    arms=tuple(_arms()),
    seeds=3,
    episodes=1000,
)
