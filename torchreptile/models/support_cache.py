"""Queries labelled one by one, each in a batch with the same support set, whose first layers are computed once.

BatchNorm makes the answer for a query depend on the support set, and the support set's maps on the query. Before the
first such layer they do not: there the outputs for the support set are stored, and the layers get the query alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchreptile.models.behaviour import NumbersRead, equal_outputs


class SupportCache:
    """The outputs that layers of a network give the support set whatever the query, found by trying a few queries.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 2))
        >>> support, query = torch.rand(5, 4), torch.rand(1, 4)
        >>> with torch.no_grad():
        ...     cache = SupportCache(network, network, support, query[0])
        ...     with cache.in_use():
        ...         out = network(torch.cat([support, query]))
        ...     torch.allclose(out, network(torch.cat([support, query])), atol=1e-6)
        True
        >>> cache.layers
        ['0']
    """

    def __init__(self, module: nn.Module, run: Callable[[Tensor], Tensor], support: Tensor, query: Tensor) -> None:
        """Find the layers and store their outputs.

        Args:
            module: the network, whose layers are called by ``run``.
            run: maps a batch (S + 1, ...) to outputs; without a graph.
            support: (S, ...) images or points.
            query: (...) one more, the first to try.
        """
        self._stored: dict[nn.Module, Tensor] = {}
        self.layers: list[str] = []
        batches = [torch.cat([support, one[None]]) for one in (query, 0 * query, 1 - query)]
        try:
            with NumbersRead() as numbers:
                tried = [_outputs(module, run, batch) for batch in batches]
            if not numbers.read:  # in Python, where anything may be decided by them
                self._store(module, [layers for _, layers in tried], len(support))
            with self.in_use():
                same = all(equal_outputs(out, run(batch)) for (out, _), batch in zip(tried, batches, strict=True))
        except Exception:  # a layer of the user's own may not take one image alone
            same = False
        if not same:
            self._stored, self.layers = {}, []

    def _store(self, module: nn.Module, tried: list[dict[nn.Module, Tensor]], images: int) -> None:
        """Store the outputs for the ``images`` images of the support set that were the same for every query."""
        for name, part in module.named_modules():
            if part not in tried[0] or any(name.startswith(f"{layer}.") for layer in self.layers):
                continue
            first, *others = (outputs[part][:images] if part in outputs else None for outputs in tried)
            if first is not None and all(other is not None and torch.equal(first, other) for other in others):
                self._stored[part] = first
                self.layers.append(name)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let these layers compute the last of their batch alone while the context lasts."""
        try:
            for part, support in self._stored.items():
                part.__dict__["forward"] = partial(_only_last, part.forward, support)
            yield
        finally:
            for part in self._stored:
                part.__dict__.pop("forward", None)


def _only_last(forward: Callable[[Tensor], Tensor], support: Tensor, x: Tensor) -> Tensor:
    """Return the outputs (S, ...) for the support set together with that of the last of the batch."""
    return torch.cat([support, forward(x[-1:])])


def _outputs(
    module: nn.Module, run: Callable[[Tensor], Tensor], batch: Tensor
) -> tuple[Tensor, dict[nn.Module, Tensor]]:
    """Return the network's outputs, and those of layers with parameters that map one batch to another once."""
    calls: dict[nn.Module, list[Tensor | None]] = {}

    def note(part: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        plain = len(inputs) == 1 and not named
        both = plain and all(isinstance(t, Tensor) and t.ndim and len(t) == len(batch) for t in (inputs[0], output))
        # A copy, because the next layer may write into it.
        calls.setdefault(part, []).append(output.clone() if both else None)

    handles = [
        part.register_forward_hook(note, with_kwargs=True)
        for part in module.modules()
        if part is not module and not _is_altered(part) and any(True for _ in part.parameters())
    ]
    try:
        out = run(batch)
    finally:
        for handle in handles:
            handle.remove()
    return out, {part: made[0] for part, made in calls.items() if len(made) == 1 and made[0] is not None}


def _is_altered(part: nn.Module) -> bool:
    """Whether a layer has hooks, or its own forward, that a stored output would bypass."""
    return bool(part._forward_hooks or part._forward_pre_hooks or "forward" in part.__dict__)
