"""Differentiable inner steps of plain SGD, as in MAML: from the adapted weights back to the initial ones.

The gradient of a loss at the adapted weights is pulled back through the steps, last step first. The graph of a step,
with its second derivatives, needs several times the memory of a plain step. The steps are therefore cut into segments,
of which only one has its graph in memory at a time. For the others only the initial weights are stored, and their steps
are recomputed in the backward pass, with the same random numbers (Dropout): the results are equal, for more arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.algorithms.optim.inner_loop import InnerLoop
from torchreptile.core.random_state import RandomState
from torchreptile.models.built_in import Params
from torchreptile.models.execution.execution import stack

Rates = Mapping[str, float | Tensor]
"""Learning rates by parameter name: a number, or a tensor shaped like the parameter. Others are not moved."""

Batches = Sequence[tuple[Tensor, Tensor]]
"""Images (T, B, C, H, W) and labels (T, B), or points and values, for every inner step."""


@dataclass(frozen=True, eq=False)
class UnrolledLoop:
    """T completed inner loops, and the way back through them.

    Attributes:
        end: the adapted weights by name, (T, ...) each, detached from any graph.
        pull: maps the gradient of a loss at ``end``, (T, ...) each, to its gradients with respect to the initial
            weights and to the rates that are tensors, summed over tasks. It can be called once.
    """

    end: Params
    pull: Callable[[Params], tuple[Params, Params]]


def descend(loop: InnerLoop, params: Params, rates: Rates, batches: Batches, tasks: int) -> Params:
    """Return the weights after one SGD step per batch, (T, ...) each, without a graph.

    Args:
        loop: computes losses and gradients.
        params: initial weights by name, common to all tasks (no leading axis).
        rates: learning rates.
        batches: one per step; without any, the weights stay unchanged.
        tasks: T.
    """
    weights = stack(params, tasks, loop.execution.kernel_order)
    for x, y in batches:
        _, gradient = loop.loss_and_gradient(weights, x, y)
        weights = _stepped(weights, gradient, rates)
    return weights


def differentiable_descent(
    loop: InnerLoop, params: Params, rates: Rates, batches: Batches, segment: int
) -> UnrolledLoop:
    """Run one SGD step per batch, differentiable in the initial weights and the rates.

    Args:
        loop: computes losses and gradients.
        params: initial weights by name, common to all tasks (no leading axis).
        rates: learning rates.
        batches: one per step, at least one.
        segment: number of steps whose graph is in memory at a time.
    """
    start = stack(params, len(batches[0][0]), loop.execution.kernel_order)
    cut = [batches[first : first + segment] for first in range(0, len(batches), segment)]
    begins, random_states = [start], []
    for part in cut[:-1]:
        random_states.append(RandomState.now(batches[0][0].device) if loop.execution.draws else None)
        begins.append(_without_graph(loop, begins[-1], rates, part))
    last = _Segment(loop, begins[-1], rates, cut[-1])  # the first in the backward pass: its graph is needed at once

    def pull(gradient: Params) -> tuple[Params, Params]:
        totals = {name: torch.zeros_like(rate) for name, rate in rates.items() if isinstance(rate, Tensor)}
        for this in _backwards(last, loop, begins, rates, cut, random_states):
            gradient, of_rates = this.pull(gradient)
            for name, g in of_rates.items():
                totals[name] += g
        return {name: g.sum(0) for name, g in gradient.items()}, totals

    return UnrolledLoop({name: p.detach() for name, p in last.end.items()}, pull)


class _Segment:
    """A few inner steps with their graph."""

    def __init__(self, loop: InnerLoop, begin: Params, rates: Rates, batches: Batches) -> None:
        self._begin = {name: p.detach().requires_grad_() for name, p in begin.items()}
        self._rates = {name: r.detach().requires_grad_() for name, r in rates.items() if isinstance(r, Tensor)}
        self.end = self._begin
        with torch.enable_grad():
            for x, y in batches:
                _, gradient = loop.differentiable_gradient(self.end, x, y)
                self.end = _stepped(self.end, gradient, {**rates, **self._rates})

    def pull(self, gradient: Params) -> tuple[Params, Params]:
        """Return the gradients at the initial weights, (T, ...) each, and of the rates, from that at the end."""
        names, inputs = list(self._begin), [*self._begin.values(), *self._rates.values()]
        ends, at_end = [self.end[name] for name in names], [gradient[name] for name in names]
        found = torch.autograd.grad(ends, inputs, at_end, materialize_grads=True)
        of_rates = dict(zip(self._rates, found[len(names) :], strict=True))
        self.end = self._begin  # frees the graph
        return dict(zip(names, found, strict=False)), of_rates


def _backwards(
    last: _Segment,
    loop: InnerLoop,
    begins: list[Params],
    rates: Rates,
    cut: Sequence[Batches],
    random_states: list[RandomState | None],
) -> Iterator[_Segment]:
    """Yield the segments from the last to the first, each recomputed when its turn comes, from its random state."""
    yield last
    for begin, part, before in zip(reversed(begins[:-1]), reversed(cut[:-1]), reversed(random_states), strict=True):
        with before.restored(part[0][0].device) if before is not None else nullcontext():
            segment = _Segment(loop, begin, rates, part)
        yield segment


def _without_graph(loop: InnerLoop, weights: Params, rates: Rates, batches: Batches) -> Params:
    """Return the weights after a segment, by the same arithmetic as the backward pass, so that both agree exactly."""
    for batch in batches:
        end = _Segment(loop, weights, rates, [batch]).end
        weights = {name: p.detach() for name, p in end.items()}
    return weights


def _stepped(weights: Params, gradient: Params, rates: Rates) -> Params:
    """Return the weights after one step of SGD; those without a rate are unchanged."""
    return {name: p - rates[name] * gradient[name] if name in rates else p for name, p in weights.items()}
