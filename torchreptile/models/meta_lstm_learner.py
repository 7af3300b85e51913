"""The learner of Ravi and Larochelle 2017: four pooled convolutions whose BatchNorm keeps running averages per episode.

Weights are stacked: T learners at once, one per task, each with its own statistics.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchreptile.core.errors import ConfigError
from torchreptile.models.built_in import BuiltInNetwork, ExecutionRequest, Params, Shape, image_sizes
from torchreptile.models.conv4.layers import BATCH_NORM_EPS, BLOCKS, KERNEL, heads
from torchreptile.models.execution.execution import Execution

MOMENTUM = 0.95  # the weight of the newest batch in the running averages
LARGE = 64  # pixels from which learners run one after another on a CPU

Averages = list[tuple[Tensor, Tensor]]
"""Running mean and variance of the maps of each block, (T * filters,) each."""


class MetaLSTMLearner(BuiltInNetwork):
    """Four blocks of [3x3 convolution, BatchNorm, ReLU, 2x2 max-pool rounding down] and a linear layer.

    Images of 84 x 84 pixels end in maps of 5 x 5, and 28 x 28 in a single pixel, which is not pooled again. With 32
    filters, mini-ImageNet at 5-way takes 32,901 parameters.

    Example:
        >>> import torch
        >>> learner = MetaLSTMLearner((3, 84, 84), way=5)
        >>> sum(p.numel() for p in learner.parameters())
        32901
        >>> tuple(learner(torch.zeros(2, 3, 84, 84)).shape)
        (2, 5)
    """

    def __init__(self, image_shape: Shape, way: int, filters: int = 32) -> None:
        """Build the learner with weights drawn from torch's global generator.

        Args:
            image_shape: (C, H, W) with H = W.
            way: classes of a task.
            filters: of each block.
        """
        super().__init__()
        channels, size, _ = image_sizes(image_shape, "the learner of meta-lstm", square=True)
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

    def execution(self, request: ExecutionRequest) -> Execution:
        """Return grouped convolutions, or for auto on a CPU with large maps one learner after another.

        Args:
            request: the requested execution, and what it is for.

        Raises:
            ConfigError: an execution other than auto, grouped or loop was requested.
        """
        name, reason = request.name, "as requested"
        if name == "auto":
            large = request.device.type == "cpu" and request.image_shape[1] >= LARGE
            name, reason = ("loop", "large maps") if large else ("grouped", "small maps, or a GPU")
        if name == "loop":
            return Execution(name, reason, self.one_by_one, one_by_one=True)
        if name == "grouped":
            return Execution(name, reason, self.forward_stacked)
        raise ConfigError(f"execution is {name}; the learner of meta-lstm runs with auto, grouped or loop")

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, way) of images (B, C, H, W), normalised by this batch."""
        params = {name: p.unsqueeze(0) for name, p in self.named_parameters()}
        return self.forward_stacked(params, x.unsqueeze(0)).squeeze(0)

    def fresh_averages(self, like: Tensor, tasks: int) -> Averages:
        """Return the running averages of T learners before the first batch: mean 0, variance 1.

        Args:
            like: a tensor with the dtype and device to use.
            tasks: T.
        """
        return [(like.new_zeros(tasks * self.filters), like.new_ones(tasks * self.filters)) for _ in range(BLOCKS)]

    def forward_stacked(
        self, params: Params, x: Tensor, averages: Averages | None = None, by_averages: bool = False
    ) -> Tensor:
        """Return logits (T, B, way) of T learners, computed as one network whose convolutions have T groups.

        Args:
            params: by name, (T, ...) each.
            x: (T, B, C, H, W) images.
            averages: running averages, updated in place with the statistics of this batch.
            by_averages: normalise by ``averages`` instead of the batch, without updating them.
        """
        tasks, batch = x.shape[:2]
        x = x.transpose(0, 1).flatten(1, 2)  # (B, T * C, H, W)
        for block in range(BLOCKS):
            weight, bias = params[f"convs.{block}.weight"].flatten(0, 1), params[f"convs.{block}.bias"].flatten()
            gamma, beta = params[f"norms.{block}.weight"].flatten(), params[f"norms.{block}.bias"].flatten()
            mean, variance = averages[block] if averages is not None else (None, None)
            x = F.conv2d(x, weight, bias, padding=1, groups=tasks)
            x = F.batch_norm(x, mean, variance, gamma, beta, not by_averages, MOMENTUM, BATCH_NORM_EPS).relu()
            x = F.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x
        features = x.reshape(batch, tasks, -1).transpose(0, 1)
        return heads(params, features)

    def one_by_one(
        self, params: Params, x: Tensor, averages: Averages | None = None, by_averages: bool = False
    ) -> Tensor:
        """Return logits (T, B, way) of T learners, one after another: faster on a CPU when maps are large.

        Args:
            params: by name, (T, ...) each.
            x: (T, B, C, H, W) images.
            averages: running averages, updated in place with the statistics of this batch.
            by_averages: normalise by ``averages`` instead of the batch, without updating them.
        """
        logits = []
        for task in range(len(x)):
            filters = slice(task * self.filters, (task + 1) * self.filters)
            its_averages = averages and [(mean[filters], variance[filters]) for mean, variance in averages]
            its_params = {name: p[task : task + 1] for name, p in params.items()}
            logits.append(self.forward_stacked(its_params, x[task : task + 1], its_averages, by_averages))
        return torch.cat(logits)
