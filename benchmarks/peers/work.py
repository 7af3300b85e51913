"""The work that every contestant does, in words that every interpreter here understands: NumPy and nothing else.

An outer step of Reptile: draw 5 tasks of 5 classes from uint8 images in memory, train a copy of the network on
each for 5 inner steps of 10 images with Adam, move the weights halfway to the copies' mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TASKS, WAY, INNER_STEPS, INNER_BATCH = 5, 5, 5, 10
INNER_LR, BETA2 = 1e-3, 0.999  # beta1 is 0
ADAM_EPS, CHECK_EPS = 1e-8, 1.0  # see Case
OUTER_STEP_SIZE = 0.5
CLASSES, IMAGES_PER_CLASS = 100, 20
BATCH_NORM_EPS, BLOCKS, KERNEL = 1e-3, 4, 3


@dataclass(frozen=True)
class Network:
    """Four blocks of [3x3 convolution, BatchNorm by the batch at hand, ReLU] and a linear layer.

    Attributes:
        channels, size: of the images.
        hidden: filters of every block.
        stride: 2, or 1 followed by 2x2 max-pooling that rounds up. Padding is TensorFlow's 'SAME'.
    """

    channels: int
    size: int
    hidden: int
    stride: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self.channels, self.size, self.size

    @property
    def sides(self) -> list[int]:
        """Of the maps that enter each block, and last of those that leave the fourth."""
        return [math.ceil(self.size / 2**block) for block in range(BLOCKS + 1)]

    @property
    def features(self) -> int:
        """What enters the linear layer: channels first, then rows, then columns."""
        return self.hidden * self.sides[-1] ** 2

    @property
    def outer_step_gflop(self) -> float:
        """Multiplications and additions of convolutions and linear layers, forward and backward, in billions."""
        total = 3 * self.features * WAY
        for block, side in enumerate(self.sides[:-1]):
            inputs = self.hidden if block else self.channels
            passes = 3 if block else 2  # nobody needs the gradient of the images
            total += passes * KERNEL**2 * inputs * self.hidden * math.ceil(side / self.stride) ** 2
        return 2 * total * INNER_BATCH * INNER_STEPS * TASKS / 1e9


NETWORKS = {"omniglot": Network(1, 28, hidden=64, stride=2), "mini-imagenet": Network(3, 84, hidden=32, stride=1)}


@dataclass(frozen=True)
class Protocol:
    """What contestants may differ in, because a peer cannot do otherwise.

    Attributes:
        shots: images per class in a task. 10 make 50, dealt out in mini-batches of 10; 2 make 10, all in every batch.
        inner_state: share (each task starts from one carried second moment of Adam, averaged afterwards) or reset.
    """

    shots: int
    inner_state: str


PROTOCOLS = {"reptile": Protocol(shots=10, inner_state="share"), "full-batch": Protocol(shots=2, inner_state="reset")}


def same_padding(size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's 'SAME' padding before and after an axis of ``size`` pixels."""
    total = max((math.ceil(size / stride) - 1) * stride + KERNEL - size, 0)
    return total // 2, total - total // 2


def noise_store(network: Network) -> np.ndarray:
    """(CLASSES * IMAGES_PER_CLASS, C, H, W) uint8, classes contiguous; what they show does not change the time."""
    shape = (CLASSES * IMAGES_PER_CLASS, *network.image_shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@dataclass(frozen=True)
class Case:
    """Where everybody starts and, for the check, what everybody sees.

    Attributes:
        weights: by torchreptile's names: convs.0.weight (O, I, h, w), norms.0.weight, ..., head.weight (way, features).
        images: (outer steps, INNER_STEPS, TASKS, INNER_BATCH, C, H, W) uint8.
        labels: (outer steps, INNER_STEPS, TASKS, INNER_BATCH) int64.
        seed: of torch's generator, from which torchreptile itself draws these very images.
        eps: of Adam: ADAM_EPS to measure, CHECK_EPS to check. With an eps next to nothing Adam's first step is the
            gradient's sign, which turns rounding into whole learning rates and sends losses in fp32 apart in the third
            digit. A large eps makes Adam smooth, and leaves it Adam.
    """

    weights: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray
    seed: int
    eps: float

    def save(self, path: str) -> None:
        """To an .npz file."""
        parts = {f"weights/{name}": value for name, value in self.weights.items()}
        np.savez(path, images=self.images, labels=self.labels, seed=self.seed, eps=self.eps, **parts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str) -> Case:
        """From such a file."""
        with np.load(path) as parts:
            weights = {name[8:]: parts[name] for name in parts.files if name.startswith("weights/")}
            return cls(weights, parts["images"], parts["labels"], int(parts["seed"]), float(parts["eps"]))
