"""Reptile with the inner loop of higher, which has no Reptile itself, one task after another (variant: loop)."""

from __future__ import annotations

import math

import higher
import torch
import torch.nn.functional as F
from plain_torch import Batches, Functional, by_task
from torch import Tensor
from work import BETA2, INNER_LR, INNER_STEPS, OUTER_STEP_SIZE, TASKS, Case, Network, Protocol
from worker import Contestant, serve


class Higher(Functional):
    """Inner loops by higher; they start from the state of a plain torch.optim.Adam."""

    def __init__(self, network: Network, rules: Protocol, case: Case) -> None:
        super().__init__(network, rules, case)
        self._adam = torch.optim.Adam(self.net.parameters(), lr=INNER_LR, betas=(0.0, BETA2), eps=case.eps)
        self._done, self._eps = 0, case.eps

    def learn(self, batches: Batches) -> Tensor:
        """Run an outer step, one task after another; second moments are averaged explicitly."""
        adapted, states, losses = [], [], []
        for task_batches in by_task(batches):
            with higher.innerloop_ctx(self.net, self._adam, track_higher_grads=False) as (net, adam):
                for step, (x, y) in enumerate(task_batches, start=self._done + 1):
                    loss = F.cross_entropy(net(x), y)
                    # higher adds eps before the bias correction, torch.optim.Adam (and all others here) after it.
                    adam.step(loss, override={"eps": [self._eps * math.sqrt(1 - BETA2**step)]})
                    losses.append(loss.detach())
                adapted.append([p.detach() for p in net.parameters()])
                states.append([adam.state[0][index] for index in range(len(adapted[0]))])
        self._done += INNER_STEPS
        with torch.no_grad():
            for index, p in enumerate(self.net.parameters()):
                p.add_(torch.stack([copy[index] for copy in adapted]).mean(0) - p, alpha=OUTER_STEP_SIZE)
                state = {name: value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
                         for name, value in states[-1][index].items()}  # fmt: skip
                state["exp_avg_sq"] = torch.stack([each[index]["exp_avg_sq"].detach() for each in states]).mean(0)
                self._adam.state[p] = state
        return torch.stack(losses).view(TASKS, -1).T


def build(variant: str, network: Network, rules: Protocol, case: Case, threads: int) -> Contestant:
    """Return the contestant that the command line names."""
    torch.set_num_threads(threads)
    return Higher(network, rules, case)


if __name__ == "__main__":
    serve(build)
