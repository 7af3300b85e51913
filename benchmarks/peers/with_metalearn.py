"""Reptile of parallel-metalearn, set up as in its README; the variant is its ``backend``, vmap or sequential.

It uses the full support set in every inner step and resets Adam for every task, so its tasks have 10 images (2 per
class) and its rules are ``full-batch``. Its outer steps also evaluate the adapted networks on query images, which
cannot be turned off; it gets one query per task, the minimum.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from metalearn.algorithms import Reptile
from metalearn.inner_optimizers import InnerAdam, optimizers
from metalearn.loss import CategoricalAccuracy, CrossEntropy
from metalearn.model_wrappers import MAML_Model
from plain_torch import Backbone, Tasks, load, recorded
from torch import Tensor, nn
from work import BETA2, INNER_LR, INNER_STEPS, OUTER_STEP_SIZE, WAY, Case, Network, Protocol
from worker import Contestant, serve

# InnerAdam of 0.5.6 does not run unchanged: it maps over (weight, moments) tuples as leaves, but torch's pytrees
# descend into tuples by default. With tuples declared as leaves, it works.
optimizers.pytree = SimpleNamespace(tree_map=partial(pytree.tree_map, is_leaf=lambda node: isinstance(node, tuple)))

Loaded = tuple[Tensor, dict[str, Tensor], Tensor, dict[str, Tensor]]
"""Support images and labels, query images and labels, in the form of its loaders."""


class _TakingFlags(nn.Module):
    """A wrapper that lets a plain module accept the library's flags (training, num_step)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, **flags: Any) -> Tensor:
        out: Tensor = self.module(x)
        return out


class MetaLearn:
    """The library's Reptile with InnerAdam; SGD as outer optimiser gives the plain outer update."""

    def __init__(self, backend: str, network: Network, rules: Protocol, case: Case) -> None:
        model = MAML_Model(_TakingFlags(Backbone(network)), _TakingFlags(nn.Linear(network.features, WAY)))
        load(model, case.weights)
        inner = InnerAdam(
            model.get_fast_weights(), first_order=True, inner_lr=INNER_LR, beta1=0.0, beta2=BETA2, eps=case.eps,
            max_inner_steps=INNER_STEPS, learn_params=False,
        )  # fmt: skip
        self._reptile = Reptile(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=OUTER_STEP_SIZE),
            inner_optimizer=inner,
            support_loss_fn=CrossEntropy(metric_fn=CategoricalAccuracy()),
            inner_steps=INNER_STEPS,
            backend=backend,
        )
        self._tasks = self._loader(Tasks(network, rules.shots))

    @staticmethod
    def _loader(tasks: Tasks) -> Iterator[Loaded]:
        while True:
            x, y = tasks.support()
            yield x, {"labels": y}, x[:, :1], {"labels": y[:, :1]}

    def step(self, count: int) -> None:
        """Run the library's outer steps."""
        for _ in range(count):
            self._reptile.step(self._tasks)

    def check(self, case: Case) -> np.ndarray:
        """Return losses (outer steps, inner steps, 1), averaged over tasks.

        The library reports only the mean over tasks after its last inner step, so the loss at inner step k is obtained
        with k - 1 inner steps, without an update, and with the support set as query set.
        """
        losses = []
        for images, labels in zip(case.images, case.labels, strict=True):
            x, y = next(recorded(images, labels))
            loaded = (x, {"labels": y}, x, {"labels": y})
            found = []
            for steps in range(INNER_STEPS):
                self._reptile.num_inner_steps = steps
                found.append([self._reptile.step(iter([loaded]), training=False)[0]])
            self._reptile.num_inner_steps = INNER_STEPS
            self._reptile.step(iter([loaded]))
            losses.append(found)
        return np.array(losses)


def build(variant: str, network: Network, rules: Protocol, case: Case, threads: int) -> Contestant:
    """Return the contestant that the command line names."""
    torch.set_num_threads(threads)
    return MetaLearn(variant, network, rules, case)


if __name__ == "__main__":
    serve(build)
