"""The embedding of the metric learners, for T episodes that share its weights but not their BatchNorm statistics.

Four blocks of [3x3 convolution of 64 filters, BatchNorm, ReLU, 2x2 max-pool]: 28 x 28 images become 64 numbers and
84 x 84 images 1,600 (Vinyals et al. 2016, section 4.1; Snell et al. 2017, section 3.1). To the convolutions T episodes
are one batch of images. BatchNorm has two modes: the statistics of each episode's own batch, as in training, and
running averages of those, by which an image is embedded without a look at any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from torchreptile.models.conv4.network import Params
from torchreptile.models.fused_embedding_block import FusedBlock

BLOCKS = 4
HIDDEN = 64
BATCH_NORM_EPS = 1e-5  # PyTorch's default, as in the published code of Prototypical Networks


class Embedding(nn.Module):
    """Four convolutional blocks; pooling rounds down, and a map of one pixel is pooled no further.

    The convolutions have no bias: the BatchNorm behind each would take it out again.
    """

    def __init__(self, channels: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if block == 0 else hidden, hidden, 3, padding=1, bias=False) for block in range(BLOCKS)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS, track_running_stats=False) for _ in range(BLOCKS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, E), BatchNorm by this batch."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(_pool(norm(conv(x))))
        return x.flatten(1)


def for_embedding(shape: tuple[int, int, int], outputs: int) -> Embedding:
    """The published embedding for images of ``shape``, whose size decides its width: ``outputs`` has no say."""
    return Embedding(shape[0])


class Embedder:
    """Embeds the images of T episodes with one set of weights.

    A network of one's own knows no running averages: its BatchNorm goes by the batch at hand.
    """

    def __init__(self, module: nn.Module, precision: str = "fp32", compiled: bool = False) -> None:
        """``compiled``: fuse what lies between convolutions; the numbers change by rounding alone."""
        self.module, self._precision = module, precision
        self._block = FusedBlock(BATCH_NORM_EPS) if compiled and isinstance(module, Embedding) else None

    @property
    def keeps_averages(self) -> bool:
        """Whether images can be embedded by running averages."""
        return isinstance(self.module, Embedding)

    def fresh_averages(self, params: Params) -> Params:
        """Running averages before the first batch: mean 0 and variance 1."""
        if not self.keeps_averages:
            return {}
        norms = [(name.removesuffix(".weight"), p) for name, p in params.items() if name.startswith("norms.")]
        norms = [(name, p) for name, p in norms if not name.endswith(".bias")]
        means = {f"{name}.mean": torch.zeros_like(p) for name, p in norms}
        return means | {f"{name}.var": torch.ones_like(p) for name, p in norms}

    def together(self, params: Params, x: Tensor) -> tuple[Tensor, Params]:
        """Embed every episode as one batch, with BatchNorm statistics of its own.

        Args:
            params: the network's, by name; further ones are passed over.
            x: (T, B, C, H, W) images.

        Returns:
            (T, B, E), and the statistics summed over the episodes, shaped like :meth:`fresh_averages`.
        """
        params = self._own(params)
        with self._cast(x):
            if isinstance(self.module, Embedding):
                features, statistics = self._blocks(params, x)
            else:
                features = torch.stack([functional_call(self.module, params, (_last(images),)) for images in x])
                statistics = {}
        return features.to(next(iter(params.values())).dtype), statistics

    def by_averages(self, params: Params, averages: Params, x: Tensor) -> Tensor:
        """Embed every image by itself: (T, B, C, H, W) -> (T, B, E)."""
        params = self._own(params)
        maps = _last(x.flatten(0, 1))
        with self._cast(x):
            for block in range(BLOCKS):
                slope = params[f"norms.{block}.weight"] * (averages[f"norms.{block}.var"] + BATCH_NORM_EPS).rsqrt()
                shift = params[f"norms.{block}.bias"] - averages[f"norms.{block}.mean"] * slope
                # Affine by then, BatchNorm is taken into the convolution.
                kernel = params[f"convs.{block}.weight"] * slope[:, None, None, None]
                maps = F.relu(_pool(F.conv2d(maps, kernel, shift, padding=1)))
        return maps.reshape(*x.shape[:2], -1).to(slope.dtype)

    def _blocks(self, params: Params, x: Tensor) -> tuple[Tensor, Params]:
        tasks, maps, statistics = len(x), _last(x.flatten(0, 1)), {}
        for block in range(BLOCKS):
            gamma, beta = params[f"norms.{block}.weight"], params[f"norms.{block}.bias"]
            convolved = F.conv2d(maps, params[f"convs.{block}.weight"], padding=1)
            activate = _plain_block if self._block is None or min(convolved.shape[-2:]) < 2 else self._block
            done = [activate(part, gamma, beta) for part in convolved.chunk(tasks)]
            maps = torch.cat([pooled for pooled, _, _ in done]) if tasks > 1 else done[0][0]
            statistics[f"norms.{block}.mean"] = torch.stack([mean for _, mean, _ in done]).sum(0)
            statistics[f"norms.{block}.var"] = torch.stack([variance for _, _, variance in done]).sum(0)
        return maps.reshape(*x.shape[:2], -1), statistics

    def _own(self, params: Params) -> Params:
        return {name: params[name] for name, _ in self.module.named_parameters()}

    def _cast(self, x: Tensor) -> torch.autocast:
        return torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self._precision == "bf16")


Block = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(a convolution's output (B, C, H, W), gamma, beta) -> (pooled, mean, unbiased variance), the last two detached."""


def _plain_block(y: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """BatchNorm by the batch, max-pool, ReLU; pooling first leaves ReLU a quarter of the work and the same numbers."""
    mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
    # With momentum 1 the running buffers are left holding this batch's own statistics.
    y = F.batch_norm(y, mean, variance, gamma, beta, training=True, momentum=1.0, eps=BATCH_NORM_EPS)
    return F.relu(_pool(y)), mean, variance


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def width(module: nn.Module, image_shape: tuple[int, ...]) -> int:
    """The numbers E that the network makes of an image."""
    p = next(module.parameters())
    with torch.no_grad():
        return math.prod(module(torch.zeros(2, *image_shape, dtype=p.dtype, device=p.device)).shape[1:])
