"""The learner of Ravi and Larochelle 2017: four pooled convolutions whose BatchNorm keeps averages per episode.

Weights are stacked: T learners at once, one per task, with statistics of their own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchreptile.models.conv4.network import BATCH_NORM_EPS, BLOCKS, KERNEL, Params, heads

NEWEST = 0.95  # the share that the newest batch has in the averages; the older ones keep the rest

Averages = list[tuple[Tensor, Tensor]]
"""Of every block, mean and variance of its maps, (T * filters,) each."""


class MetaLSTMLearner(nn.Module):
    """Four blocks of [3x3 convolution, BatchNorm, ReLU, 2x2 max-pool rounding down] and a linear layer.

    84 pixels end in 5 x 5 maps, 28 in one. Maps of a single pixel are not pooled.
    """

    def __init__(self, image_shape: tuple[int, int, int], way: int, filters: int = 32) -> None:
        super().__init__()
        channels, size, _ = image_shape
        self.filters = filters
        self.convs = nn.ModuleList(
            nn.Conv2d(filters if block else channels, filters, KERNEL, padding=1) for block in range(BLOCKS)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(filters, eps=BATCH_NORM_EPS, track_running_stats=False) for _ in range(BLOCKS)
        )
        for _ in range(BLOCKS):
            size = max(size // 2, 1)
        self.head = nn.Linear(filters * size * size, way)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, way), normalised by this batch."""
        params = {name: p.unsqueeze(0) for name, p in self.named_parameters()}
        return self.forward_stacked(params, x.unsqueeze(0)).squeeze(0)

    def fresh_averages(self, like: Tensor, tasks: int) -> Averages:
        """What T learners know of their maps before the first batch: mean 0, variance 1."""
        return [(like.new_zeros(tasks * self.filters), like.new_ones(tasks * self.filters)) for _ in range(BLOCKS)]

    def forward_stacked(
        self, params: Params, x: Tensor, averages: Averages | None = None, by_averages: bool = False
    ) -> Tensor:
        """T learners as one, each convolution with T groups: (T, B, C, H, W) -> logits (T, B, way).

        Args:
            params: by name, each with a leading axis of T.
            x: T batches of images.
            averages: take in the statistics of this batch.
            by_averages: normalise by ``averages`` instead, and leave them as they are.
        """
        tasks, batch = x.shape[:2]
        x = x.transpose(0, 1).flatten(1, 2)  # (B, T * C, H, W)
        for block in range(BLOCKS):
            weight, bias = params[f"convs.{block}.weight"].flatten(0, 1), params[f"convs.{block}.bias"].flatten()
            gamma, beta = params[f"norms.{block}.weight"].flatten(), params[f"norms.{block}.bias"].flatten()
            mean, variance = averages[block] if averages is not None else (None, None)
            x = F.conv2d(x, weight, bias, padding=1, groups=tasks)
            x = F.batch_norm(x, mean, variance, gamma, beta, not by_averages, NEWEST, BATCH_NORM_EPS).relu()
            x = F.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x
        features = x.reshape(batch, tasks, -1).transpose(0, 1)
        return heads(params, features)

    def one_by_one(
        self, params: Params, x: Tensor, averages: Averages | None = None, by_averages: bool = False
    ) -> Tensor:
        """The same, learner after learner: faster on a CPU where maps are large."""
        logits = []
        for task in range(len(x)):
            part = slice(task * self.filters, (task + 1) * self.filters)
            own = [(mean[part], variance[part]) for mean, variance in averages] if averages is not None else None
            one = {name: p[task : task + 1] for name, p in params.items()}
            logits.append(self.forward_stacked(one, x[task : task + 1], own, by_averages))
        return torch.cat(logits)
