"""The metric learners as plainly as they can be written: one task, one query, one support image at a time.

Written from the papers' equations and slow on purpose; shares no code with the package but the parameters' names.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def attention_probabilities(support: Tensor, labels: list[int], query: Tensor, way: int, scale: float = 1.0) -> Tensor:
    """(S, E), S labels, (Q, E) -> (Q, way): Matching Networks' equation 1, with the softmax of scaled cosines for a."""
    rows = []
    for x in query:
        cosines = [scale * float(x @ s / (x.norm() * s.norm())) for s in support]
        total = sum(math.exp(c) for c in cosines)
        row = [0.0] * way
        for c, label in zip(cosines, labels, strict=True):
            row[label] += math.exp(c) / total
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def prototype_probabilities(support: Tensor, labels: list[int], query: Tensor, way: int) -> Tensor:
    """(S, E), S labels, (Q, E) -> (Q, way): Prototypical Networks' equations 1 and 2."""
    centres = []
    for label in range(way):
        own = [s for s, its in zip(support, labels, strict=True) if its == label]
        centres.append(sum(own) / len(own))
    rows = []
    for x in query:
        closeness = [math.exp(-float(((x - centre) ** 2).sum())) for centre in centres]
        rows.append([c / sum(closeness) for c in closeness])
    return torch.tensor(rows, dtype=torch.float64)


def lstm_cell(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The gates' inputs, side by side as torch orders them (in, forget, change, out) -> output and cell."""
    size = len(cell)
    i, f, g, o = (gates[part * size : (part + 1) * size] for part in range(4))
    cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def one_way(p: Weights, suffix: str, sequence: list[Tensor]) -> list[Tensor]:
    """The outputs of one direction of the LSTM over the support set."""
    output = cell = torch.zeros_like(sequence[0])
    outputs = []
    for x in sequence:
        gates = p[f"over_support.weight_ih_l0{suffix}"] @ x + p[f"over_support.bias_ih_l0{suffix}"]
        gates = gates + p[f"over_support.weight_hh_l0{suffix}"] @ output + p[f"over_support.bias_hh_l0{suffix}"]
        output, cell = lstm_cell(gates, cell)
        outputs.append(output)
    return outputs


def full_context(p: Weights, support: Tensor, query: Tensor, reads: int) -> tuple[Tensor, Tensor]:
    """One task: (S, E), (Q, E) -> the same in context; Matching Networks' appendix A."""
    sequence = list(support)
    forwards = one_way(p, "", sequence)
    backwards = one_way(p, "_reverse", sequence[::-1])[::-1]
    g = [x + there + back for x, there, back in zip(sequence, forwards, backwards, strict=True)]
    embedded = []
    for f in query:
        h, c = torch.zeros_like(f), torch.zeros_like(f)
        for _ in range(reads):
            scores = [math.exp(float(h @ one)) for one in g]
            r = sum(score / sum(scores) * one for score, one in zip(scores, g, strict=True))
            gates = (
                p["read.weight_ih"] @ f
                + p["read.bias_ih"]
                + p["read.weight_hh"] @ torch.cat([h, r])
                + p["read.bias_hh"]
            )
            out, c = lstm_cell(gates, c)
            h = out + f
        embedded.append(h)
    return torch.stack(g), torch.stack(embedded)


def embedding(p: Weights, x: Tensor, averages: Weights | None = None) -> Tensor:
    """(B, C, H, W) -> (B, E): four blocks in the order of the papers, BatchNorm by the batch or by averages."""
    for block in range(4):
        x = F.conv2d(x, p[f"convs.{block}.weight"], padding=1)
        if averages is None:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, variance = averages[f"norms.{block}.mean"], averages[f"norms.{block}.var"]
        x = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + 1e-5)
        x = torch.relu(x * p[f"norms.{block}.weight"][:, None, None] + p[f"norms.{block}.bias"][:, None, None])
        if min(x.shape[2:]) > 1:
            x = F.max_pool2d(x, 2)
    return x.flatten(1)
