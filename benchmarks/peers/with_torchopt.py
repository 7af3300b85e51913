"""Reptile with the functional Adam of torchopt, which has no Reptile itself. The variant is vmap or loop.

With vmap the weights of all tasks are stacked, and torch.func computes their gradients in parallel; with loop one task
follows another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torchopt
from plain_torch import Batches, Functional, by_task
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap
from work import BETA2, INNER_LR, OUTER_STEP_SIZE, TASKS, Case, Network, Protocol
from worker import Contestant, serve

Params = dict[str, Tensor]


class TorchOpt(Functional):
    """Reptile with weights and optimiser state as trees of tensors."""

    def __init__(self, tasks: str, network: Network, rules: Protocol, case: Case) -> None:
        super().__init__(network, rules, case)
        self._vmap = tasks == "vmap"
        self._phi = {name: p.detach().clone() for name, p in self.net.named_parameters()}
        self._adam = torchopt.adam(INNER_LR, betas=(0.0, BETA2), eps=case.eps)
        self._state = self._adam.init(self._phi)

    def learn(self, batches: Batches) -> Tensor:
        """Run an outer step with all tasks in parallel, or one after another."""
        if self._vmap:
            start = _map(lambda t: t.expand(TASKS, *t.shape).clone(), (self._phi, self._state))
            adapted, losses = self._train(start, batches)
        else:
            parts = [self._train((self._phi, self._state), task_batches) for task_batches in by_task(batches)]
            adapted = _map(lambda *copies: torch.stack(copies), *(part for part, _ in parts))
            losses = torch.stack([loss for _, loss in parts], dim=1)
        params, self._state = _map(lambda copies: copies.mean(0), adapted)
        self._phi = {name: p + OUTER_STEP_SIZE * (params[name] - p) for name, p in self._phi.items()}
        return losses

    def _train(self, start: tuple[Params, Any], batches: Batches) -> tuple[tuple[Params, Any], Tensor]:
        """Run the inner steps of one task or of all; return the final state and losses (steps,) or (steps, TASKS)."""
        (params, state), losses = start, []
        one = grad_and_value(self._loss)
        gradient = vmap(one) if self._vmap else one
        for x, y in batches:
            g, loss = gradient(params, x, y)
            updates, state = self._adam.update(g, state, inplace=False)
            params = torchopt.apply_updates(params, updates, inplace=False)
            losses.append(loss)
        return (params, state), torch.stack(losses)

    def _loss(self, params: Params, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(self.net, params, (x,)), y)


def _map(function: Callable[..., Tensor], *trees: Any) -> Any:
    """Map a function over trees of tensors; the optimiser's integer counters, equal for all tasks, are unchanged."""
    return torchopt.pytree.tree_map(lambda t, *more: function(t, *more) if t.is_floating_point() else t, *trees)


def build(variant: str, network: Network, rules: Protocol, case: Case, threads: int) -> Contestant:
    """Return the contestant that the command line names."""
    torch.set_num_threads(threads)
    return TorchOpt(variant, network, rules, case)


if __name__ == "__main__":
    serve(build)
