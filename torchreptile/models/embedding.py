"""The embedding of the metric learners, for T episodes that share its weights but not their BatchNorm statistics.

Four blocks of [3x3 convolution of 64 filters, BatchNorm, ReLU, 2x2 max-pool]: images of 28 x 28 pixels become 64
numbers, and of 84 x 84 pixels 1,600 (Vinyals et al. 2016, section 4.1; Snell et al. 2017, section 3.1). The
convolutions see T episodes as one batch of images. BatchNorm has two modes: the statistics of each episode's batch, as
in training, and running averages of those, with which each image is embedded independently of all others.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchreptile.core.random_state import seeded
from torchreptile.models.built_in import BuiltInNetwork, Params, Shape, image_sizes
from torchreptile.models.fused_embedding_block import FusedBlock
from torchreptile.models.module_call import ModuleCall, params_of

BLOCKS = 4
HIDDEN = 64
BATCH_NORM_EPS = 1e-5  # PyTorch's default, as in the published code of Prototypical Networks


class Embedding(BuiltInNetwork):
    """The four-block convolutional embedding of Matching Networks and Prototypical Networks.

    Pooling rounds down, and a map of one pixel is not pooled. The convolutions have no bias, because the BatchNorm
    after each would subtract it again. With 64 filters there are 111,680 parameters for one channel and 112,832 for
    three.

    Example:
        >>> import torch
        >>> tuple(Embedding(channels=3)(torch.zeros(2, 3, 84, 84)).shape)
        (2, 1600)
    """

    fusible_blocks = True

    def __init__(self, channels: int, hidden: int = HIDDEN) -> None:
        """Build the embedding with weights drawn from torch's global generator.

        Args:
            channels: of the images.
            hidden: filters of every block.
        """
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if block == 0 else hidden, hidden, 3, padding=1, bias=False) for block in range(BLOCKS)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(hidden, eps=BATCH_NORM_EPS, track_running_stats=False) for _ in range(BLOCKS)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return embeddings (B, E) of images (B, C, H, W), normalised by this batch."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(_pool(norm(conv(x))))
        return x.flatten(1)


def for_embedding(shape: Shape, outputs: int) -> Embedding:
    """Return the published embedding for images of ``shape`` (C, H, W).

    The size of the images decides the size of the embedding; ``outputs`` is ignored.
    """
    return Embedding(image_sizes(shape, "the embedding")[0])


class Embedder:
    """Embeds the images of T episodes with one set of weights.

    Only the built-in :class:`Embedding` has running averages; BatchNorm of a custom network uses each batch.

    Example:
        >>> import torch
        >>> module = Embedding(channels=1)
        >>> embedder, params = Embedder(module), dict(module.named_parameters())
        >>> images = torch.rand(2, 15, 1, 28, 28)  # 2 episodes of 15 images
        >>> embedded, statistics = embedder.by_batch(params, images)
        >>> tuple(embedded.shape), sorted(statistics)[0]
        ((2, 15, 64), 'norms.0.mean')
    """

    def __init__(
        self, module: nn.Module, precision: str = "fp32", compiled: bool = False, single: ModuleCall | None = None
    ) -> None:
        """Prepare to embed with ``module``.

        Args:
            module: the network; its own weights are never used.
            precision: fp32, tf32 or bf16.
            compiled: fuse the operations between convolutions; results differ in rounding only.
            single: how a custom network is called; by default with the channels of its images last in memory.
        """
        self.module, self._precision, self._single = module, precision, single or ModuleCall(module)
        self._block = FusedBlock(BATCH_NORM_EPS) if compiled and isinstance(module, Embedding) else None

    @property
    def keeps_averages(self) -> bool:
        """Whether images can be embedded with running averages."""
        return isinstance(self.module, Embedding)

    def fresh_averages(self, params: Params) -> Params:
        """Return the running averages before the first batch by name: mean 0 and variance 1; {} without averages."""
        if not self.keeps_averages:
            return {}
        norms = [(name.removesuffix(".weight"), p) for name, p in params.items() if name.startswith("norms.")]
        norms = [(name, p) for name, p in norms if not name.endswith(".bias")]
        means = {f"{name}.mean": torch.zeros_like(p) for name, p in norms}
        return means | {f"{name}.var": torch.ones_like(p) for name, p in norms}

    def by_batch(self, params: Params, x: Tensor) -> tuple[Tensor, Params]:
        """Embed every episode as one batch, with its own BatchNorm statistics.

        Args:
            params: the network's parameters by name; other names are ignored.
            x: (T, B, C, H, W) images.

        Returns:
            Embeddings (T, B, E), and the statistics summed over the episodes, shaped like :meth:`fresh_averages`.
        """
        params = self._own(params)
        with self._cast(x):
            if isinstance(self.module, Embedding):
                features, statistics = self._blocks(params, x)
            else:
                features = torch.stack([self._single(params, images) for images in x])
                statistics = {}
        return features.to(next(iter(params.values())).dtype), statistics

    def by_averages(self, params: Params, averages: Params, x: Tensor) -> Tensor:
        """Embed every image independently of the others.

        Args:
            params: the network's parameters by name; other names are ignored.
            averages: running means and variances by name.
            x: (T, B, C, H, W) images.

        Returns:
            Embeddings (T, B, E).
        """
        params = self._own(params)
        maps = _last(x.flatten(0, 1))
        with self._cast(x):
            for block in range(BLOCKS):
                slope = params[f"norms.{block}.weight"] * (averages[f"norms.{block}.var"] + BATCH_NORM_EPS).rsqrt()
                shift = params[f"norms.{block}.bias"] - averages[f"norms.{block}.mean"] * slope
                # With fixed statistics BatchNorm is affine, and is folded into the convolution.
                kernel = params[f"convs.{block}.weight"] * slope[:, None, None, None]
                maps = F.relu(_pool(F.conv2d(maps, kernel, shift, padding=1)))
        return maps.reshape(*x.shape[:2], -1).to(slope.dtype)

    def _blocks(self, params: Params, x: Tensor) -> tuple[Tensor, Params]:
        """Return the built-in embeddings (T, B, E), and the statistics summed over the episodes."""
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
    """Apply BatchNorm, max-pool and ReLU; pooling before ReLU gives the same numbers with a quarter of the work."""
    mean, variance = torch.zeros_like(gamma), torch.zeros_like(gamma)
    # With momentum 1 the running buffers end up holding this batch's statistics.
    y = F.batch_norm(y, mean, variance, gamma, beta, training=True, momentum=1.0, eps=BATCH_NORM_EPS)
    return F.relu(_pool(y)), mean, variance


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x


def _last(x: Tensor) -> Tensor:
    """Return maps with their channels last in memory; points unchanged."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def width(module: nn.Module, image_shape: tuple[int, ...]) -> int:
    """Return E, the size of the embedding that ``module`` makes of an image of ``image_shape`` (C, H, W)."""
    params = params_of(module)
    p = next(iter(params.values()))
    call = ModuleCall(module, channels_last=False)
    with torch.no_grad(), seeded(0, p.device):
        return math.prod(call(params, torch.zeros(2, *image_shape, dtype=p.dtype, device=p.device)).shape[1:])
