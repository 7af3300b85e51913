"""MAML with `higher` or torchopt, one task after another as in their own examples; started by benchmarks/maml.py.

Takes its workload as JSON on the command line, and answers every line of standard input with the seconds of an outer
step: drawing tasks, differentiable inner steps, backward through them, and torch.optim.Adam.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from plain_torch import Backbone
from torch import Tensor, nn
from work import CLASSES, IMAGES_PER_CLASS, NETWORKS, noise_store


@dataclass(frozen=True)
class Work:
    """The workload that benchmarks/maml.py sends; see its Peer."""

    library: str
    network: str
    threads: int
    tasks: int
    way: int
    shots: int
    queries: int
    steps: int
    lr: float


class Net(nn.Module):
    """torchreptile's network for MAML: on Omniglot the head's input is averaged over positions."""

    def __init__(self, network: str, way: int) -> None:
        super().__init__()
        shape = NETWORKS[network]
        self.backbone, self.averaged = Backbone(shape), network == "omniglot"
        self.head = nn.Linear(shape.hidden if self.averaged else shape.features, way)
        self.hidden = shape.hidden

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits: (B, C, H, W) -> (B, way)."""
        features = self.backbone(x)
        if self.averaged:
            features = features.view(len(x), self.hidden, -1).mean(2)
        out: Tensor = self.head(features)
        return out


class Contestant:
    """Outer steps with either library on random tasks."""

    def __init__(self, work: Work) -> None:
        self.work, self.net = work, Net(work.network, work.way)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.inner = torch.optim.SGD(self.net.parameters(), lr=work.lr)
        self.store, self.draws = torch.from_numpy(noise_store(NETWORKS[work.network])), np.random.default_rng(0)

    def task(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a task: support images and labels, query images and labels."""
        work, each = self.work, self.work.shots + self.work.queries
        classes = self.draws.choice(CLASSES, work.way, replace=False)
        chosen = np.stack([c * IMAGES_PER_CLASS + self.draws.choice(IMAGES_PER_CLASS, each, False) for c in classes])
        images = self.store[torch.from_numpy(chosen)].float().div_(255)  # (way, each, C, H, W)
        labels = torch.arange(work.way)[:, None].expand(-1, each)
        parts = (slice(0, work.shots), slice(work.shots, None))
        support, query = ((images[:, part].flatten(0, 1), labels[:, part].flatten()) for part in parts)
        return *support, *query

    def step(self) -> None:
        """Run an outer step."""
        self.adam.zero_grad()
        for _ in range(self.work.tasks):
            one = self.with_higher if self.work.library == "higher" else self.with_torchopt
            (one(*self.task()) / self.work.tasks).backward()  # type: ignore[no-untyped-call]
            if self.work.library == "torchopt":
                self.rewind()
        self.adam.step()

    def with_higher(self, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        """Return the query loss after inner steps by `innerloop_ctx`."""
        import higher

        with higher.innerloop_ctx(self.net, self.inner, copy_initial_weights=False) as (net, sgd):
            for _ in range(self.work.steps):
                sgd.step(F.cross_entropy(net(x), y))
            return F.cross_entropy(net(query_x), query_y)

    def with_torchopt(self, x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        """Return the query loss after inner steps by MetaSGD."""
        import torchopt

        self.initial = torchopt.extract_state_dict(self.net, by="reference", detach_buffers=True)
        sgd = torchopt.MetaSGD(self.net, lr=self.work.lr)
        for _ in range(self.work.steps):
            sgd.step(F.cross_entropy(self.net(x), y))
        return F.cross_entropy(self.net(query_x), query_y)

    def rewind(self) -> None:
        """Restore the meta-parameters after a task, as torchopt's examples do."""
        import torchopt

        torchopt.recover_state_dict(self.net, self.initial)


def main() -> None:
    """Run an outer step for every line of input."""
    work = Work(**json.loads(sys.argv[1]))
    torch.set_num_threads(work.threads)
    contestant = Contestant(work)
    for _ in sys.stdin:
        start = time.perf_counter()
        contestant.step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
