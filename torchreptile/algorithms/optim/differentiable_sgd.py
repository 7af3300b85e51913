"""Inner steps of plain SGD that can be differentiated: MAML's way from the adapted weights back to where they began.

The gradient of a loss at the adapted weights is pulled back through the steps, last step first. The graph of a step,
with its second derivatives, is several times what a plain step needs; so the steps are cut into segments, of which
one has its graph in memory at a time. Of the others only the weights they begin with are kept, and they are computed
again on the way back: the same numbers, for more arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchreptile.algorithms.optim.inner_loop import InnerLoop, Params
from torchreptile.models.execution.execution import stack

Rates = Mapping[str, float | Tensor]
"""By name of a parameter, its learning rate: one number, or a tensor shaped like it. What is not named stays put."""

Batches = Sequence[tuple[Tensor, Tensor]]
"""Of images (T, B, C, H, W) and labels (T, B), one for every inner step."""


@dataclass(frozen=True, eq=False)
class UnrolledLoop:
    """T inner loops that have been run.

    Attributes:
        end: the adapted weights, (T, ...) each, out of any graph.
        pull: takes the gradient of a loss at ``end`` back to where the loops began: the gradients, summed over tasks,
            of the weights and of those rates that are tensors. To be called once.
    """

    end: Params
    pull: Callable[[Params], tuple[Params, Params]]


def descend(loop: InnerLoop, params: Params, rates: Rates, batches: Batches, tasks: int) -> Params:
    """The weights after one SGD step per batch, with no way back.

    Args:
        loop: computes losses and gradients.
        params: where all tasks begin, not stacked.
        rates: learning rates.
        batches: what the steps see; none leaves the weights as they are.
        tasks: T.

    Returns:
        (T, ...) each.
    """
    weights = stack(params, tasks, loop.execution.kernel_order)
    for x, y in batches:
        _, gradient = loop.loss_and_gradient(weights, x, y)
        weights = _stepped(weights, gradient, rates)
    return weights


def differentiable_descent(
    loop: InnerLoop, params: Params, rates: Rates, batches: Batches, segment: int
) -> UnrolledLoop:
    """The same with a way back; ``segment`` steps have their graph in memory at a time."""
    start = stack(params, len(batches[0][0]), loop.execution.kernel_order)
    cut = [batches[first : first + segment] for first in range(0, len(batches), segment)]
    begins = [start]
    for part in cut[:-1]:
        begins.append(_without_graph(loop, begins[-1], rates, part))
    last = _Segment(loop, begins[-1], rates, cut[-1])  # where the way back begins: its graph is needed at once

    def pull(gradient: Params) -> tuple[Params, Params]:
        totals = {name: torch.zeros_like(rate) for name, rate in rates.items() if isinstance(rate, Tensor)}
        for this in _backwards(last, loop, begins, rates, cut):
            gradient, of_rates = this.pull(gradient)
            for name, g in of_rates.items():
                totals[name] += g
        return {name: g.sum(0) for name, g in gradient.items()}, totals

    return UnrolledLoop({name: p.detach() for name, p in last.end.items()}, pull)


class _Segment:
    """A few steps with their graph."""

    def __init__(self, loop: InnerLoop, begin: Params, rates: Rates, batches: Batches) -> None:
        self._begin = {name: p.detach().requires_grad_() for name, p in begin.items()}
        self._rates = {name: r.detach().requires_grad_() for name, r in rates.items() if isinstance(r, Tensor)}
        self.end = self._begin
        with torch.enable_grad():
            for x, y in batches:
                _, gradient = loop.differentiable_gradient(self.end, x, y)
                self.end = _stepped(self.end, gradient, {**rates, **self._rates})

    def pull(self, gradient: Params) -> tuple[Params, Params]:
        """From the end's gradient to the beginning's, (T, ...) each, and the rates'."""
        names, inputs = list(self._begin), [*self._begin.values(), *self._rates.values()]
        ends, at_end = [self.end[name] for name in names], [gradient[name] for name in names]
        found = torch.autograd.grad(ends, inputs, at_end, materialize_grads=True)
        of_rates = dict(zip(self._rates, found[len(names) :], strict=True))
        self.end = self._begin  # lets go of the graph
        return dict(zip(names, found, strict=False)), of_rates


def _backwards(
    last: _Segment, loop: InnerLoop, begins: list[Params], rates: Rates, cut: Sequence[Batches]
) -> Iterator[_Segment]:
    """The segments from the last to the first, each computed again when it is its turn."""
    yield last
    for begin, part in zip(reversed(begins[:-1]), reversed(cut[:-1]), strict=True):
        yield _Segment(loop, begin, rates, part)


def _without_graph(loop: InnerLoop, weights: Params, rates: Rates, batches: Batches) -> Params:
    """By the very arithmetic that the way back repeats: what is computed again must come out the same."""
    for batch in batches:
        end = _Segment(loop, weights, rates, [batch]).end
        weights = {name: p.detach() for name, p in end.items()}
    return weights


def _stepped(weights: Params, gradient: Params, rates: Rates) -> Params:
    """One step of SGD; what has no rate stays put."""
    return {name: p - rates[name] * gradient[name] if name in rates else p for name, p in weights.items()}
