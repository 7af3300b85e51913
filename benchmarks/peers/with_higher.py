"""higher has no Reptile; this is its inner loop with Reptile's around it, one task after another (variant: loop)."""

from __future__ import annotations

import math

import higher
import torch
import torch.nn.functional as F
from plain_torch import Batches, Functional, apart
from torch import Tensor
from work import BETA2, INNER_LR, INNER_STEPS, OUTER_STEP_SIZE, TASKS, Case, Network, Protocol
from worker import Contestant, serve


class Higher(Functional):
    """The optimiser whose state the inner loops start from is a plain torch.optim.Adam."""

    def __init__(self, network: Network, rules: Protocol, case: Case) -> None:
        super().__init__(network, rules, case)
        self._adam = torch.optim.Adam(self.net.parameters(), lr=INNER_LR, betas=(0.0, BETA2), eps=case.eps)
        self._done, self._eps = 0, case.eps

    def learn(self, batches: Batches) -> Tensor:
        """One task after another; the second moments are averaged by hand."""
        learned, states, losses = [], [], []
        for own in apart(batches):
            with higher.innerloop_ctx(self.net, self._adam, track_higher_grads=False) as (net, adam):
                for step, (x, y) in enumerate(own, start=self._done + 1):
                    loss = F.cross_entropy(net(x), y)
                    # It adds eps before the correction for bias, torch.optim.Adam (and everybody here) after it.
                    adam.step(loss, override={"eps": [self._eps * math.sqrt(1 - BETA2**step)]})
                    losses.append(loss.detach())
                learned.append([p.detach() for p in net.parameters()])
                states.append([adam.state[0][index] for index in range(len(learned[0]))])
        self._done += INNER_STEPS
        with torch.no_grad():
            for index, p in enumerate(self.net.parameters()):
                p.add_(torch.stack([copy[index] for copy in learned]).mean(0) - p, alpha=OUTER_STEP_SIZE)
                kept = {name: value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
                        for name, value in states[-1][index].items()}  # fmt: skip
                kept["exp_avg_sq"] = torch.stack([state[index]["exp_avg_sq"].detach() for state in states]).mean(0)
                self._adam.state[p] = kept
        return torch.stack(losses).view(TASKS, -1).T


def build(variant: str, network: Network, rules: Protocol, case: Case, threads: int) -> Contestant:
    """The contestant that the command line names."""
    torch.set_num_threads(threads)
    return Higher(network, rules, case)


if __name__ == "__main__":
    serve(build)
