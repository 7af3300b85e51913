"""Reptile as plainly as it can be written: one task, one image, one torch.optim object at a time.

Written from the published protocol alone and slow on purpose. It shares no code with the package, so that where both
agree, neither copied the other's mistake. Only the parameters' names are the package's, so that weights can be handed
over with ``load_state_dict``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
Weights = dict[str, Tensor]


class BatchNorm(nn.Module):
    """Normalises by the batch at hand, always; there is nothing else it could use."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        normal = (x - mean) / torch.sqrt(variance + 1e-3)
        return normal * self.weight[None, :, None, None] + self.bias[None, :, None, None]


class OmniglotNet(nn.Module):
    """28 -> 14 -> 7 -> 4 -> 2, 64 filters, stride 2, the pads of every layer written out."""

    def __init__(self, way: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, 64, 3, stride=2) for channels in (1, 64, 64, 64))
        self.norms = nn.ModuleList(BatchNorm(64) for _ in range(4))
        self.head = nn.Linear(2 * 2 * 64, way)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == (1, 28, 28)
        # F.pad: left, right, top, bottom
        x = torch.relu(self.norms[0](self.convs[0](F.pad(x, (0, 1, 0, 1)))))
        assert x.shape[1:] == (64, 14, 14)
        x = torch.relu(self.norms[1](self.convs[1](F.pad(x, (0, 1, 0, 1)))))
        assert x.shape[1:] == (64, 7, 7)
        x = torch.relu(self.norms[2](self.convs[2](F.pad(x, (1, 1, 1, 1)))))
        assert x.shape[1:] == (64, 4, 4)
        x = torch.relu(self.norms[3](self.convs[3](F.pad(x, (0, 1, 0, 1)))))
        assert x.shape[1:] == (64, 2, 2)
        return self.head(x.reshape(len(x), 256))


class MiniImageNetNet(nn.Module):
    """84 -> 42 -> 21 -> 11 -> 6, 32 filters, stride 1, max-pool rounding up, then ReLU."""

    def __init__(self, way: int, size: int = 84) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, 32, 3, padding=1) for channels in (3, 32, 32, 32))
        self.norms = nn.ModuleList(BatchNorm(32) for _ in range(4))
        side = {84: 6, 64: 4}[size]
        self.head = nn.Linear(side * side * 32, way)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(F.max_pool2d(norm(conv(x)), kernel_size=2, stride=2, ceil_mode=True))
        return self.head(x.flatten(1))


def cycling_batches(orders: Iterable[list[int]], batch: int) -> Iterator[list[int]]:
    """One stream of mini-batches: deal the images of each shuffled pass one by one, for as many passes as given."""
    current: list[int] = []
    for order in orders:
        for image in order:
            current.append(image)
            if len(current) == batch:
                yield current
                current = []


def replacement_batches(orders: Iterable[list[int]], batch: int) -> Iterator[list[int]]:
    """A fresh shuffle for every mini-batch, of which the rest is thrown away."""
    for order in orders:
        yield order[:batch]


class ReferenceLearner:
    """Holds phi in ``net`` and what the inner optimiser carries in ``optimizer``."""

    def __init__(
        self, net: nn.Module, optimizer: str, lr: float, policy: str = "share", per: int | None = None
    ) -> None:
        """``per``: mini-batches go down the sum of their losses divided by that number, always the same; by default
        down their mean."""
        self.net, self.name, self.lr, self.policy, self.per = net, optimizer, lr, policy, per
        self.optimizer = self._new_optimizer()

    def _new_optimizer(self) -> torch.optim.Optimizer:
        if self.name == "adam":
            return torch.optim.Adam(self.net.parameters(), lr=self.lr, betas=(0.0, 0.999), eps=1e-8)
        return torch.optim.SGD(self.net.parameters(), lr=self.lr)

    def weights(self) -> Weights:
        return {name: p.detach().clone() for name, p in self.net.named_parameters()}

    def outer_step(self, tasks: list[list[Batch]], step_size: float, last_step_only: bool = False) -> float:
        """One meta-batch, task after task; returns the mean loss.

        ``last_step_only`` is first-order MAML: a task's update is its last inner step's change alone.
        """
        phi = self.weights()
        shared = copy.deepcopy(self.optimizer.state_dict())
        changes, states, losses = [], [], []
        for batches in tasks:
            self.net.load_state_dict(phi)
            if self.policy == "reset":
                self.optimizer = self._new_optimizer()
            elif self.policy == "share":
                self.optimizer.load_state_dict(copy.deepcopy(shared))
            # "carry": the optimiser goes on as the previous task left it
            before = phi
            for images, labels in batches:
                if last_step_only:
                    before = self.weights()
                losses.append(self._inner_step(images, labels))
            after = self.weights()
            changes.append({name: after[name] - before[name] for name in phi})
            states.append(copy.deepcopy(self.optimizer.state_dict()))
        if self.policy == "share":
            self.optimizer.load_state_dict(as_if_in_sequence(shared, states))
        moved = {}
        for name, p in phi.items():
            moved[name] = p + step_size * sum(change[name] for change in changes) / len(changes)
        self.net.load_state_dict(moved)
        return sum(losses) / len(losses)

    def _inner_step(self, images: Tensor, labels: Tensor) -> float:
        losses = F.cross_entropy(self.net(images), labels, reduction="none")
        self.optimizer.zero_grad()
        (losses.sum() / (self.per or len(losses))).backward()
        self.optimizer.step()
        return float(losses.detach().mean())

    def adapted_logits(self, batches: list[Batch], support: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Adapt a copy to one evaluation episode; logits of its queries, transductive and not."""
        learner = copy.deepcopy(self)  # network and optimiser together: the copy's optimiser moves the copy
        if self.policy == "reset":
            learner.optimizer = learner._new_optimizer()
        for images, labels in batches:
            learner._inner_step(images, labels)
        with torch.no_grad():
            together = learner.net(queries)
            alone = [learner.net(torch.cat([support, query[None]]))[-1] for query in queries]
        return together, torch.stack(alone)


def as_if_in_sequence(start: dict, ends: list[dict]) -> dict:
    """Optimizer state as if tasks that all began at ``start`` had run in sequence, averaged over all orders.

    Each task is as often the last as the first: what it added decays by the steps of the 0, 1, ... tasks after it. The
    first moment is unused: beta1 = 0.
    """
    state = copy.deepcopy(ends[0])
    for index, entry in state["state"].items():
        if "exp_avg_sq" in entry:
            before = start["state"].get(index, {"step": 0, "exp_avg_sq": 0.0})
            taken = int(entry["step"] - before["step"])
            v = before["exp_avg_sq"] * 0.999 ** (taken * len(ends))
            for end in ends:
                added = end["state"][index]["exp_avg_sq"] - before["exp_avg_sq"] * 0.999**taken
                for later in range(len(ends)):
                    v = v + added * 0.999 ** (taken * later) / len(ends)
            entry["exp_avg_sq"] = v
            entry["step"] = entry["step"] + taken * (len(ends) - 1)
    return state


def annealed(start: float, end: float, step: int, steps: int) -> float:
    """Linear annealing: ``start`` at step 0, ``end`` at step ``steps``."""
    return start + (end - start) * step / steps
