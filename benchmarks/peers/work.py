"""The workload of every contestant; depends only on NumPy, so that every environment can import it.

An outer step of Reptile: draw 5 tasks of 5 classes from uint8 images in memory, train a copy of the network on each for
5 inner steps of 10 images with Adam, and move the weights halfway to the mean of the copies.
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
    """Four blocks of 3 x 3 convolution (padding 'SAME'), BatchNorm with batch statistics and ReLU, and a linear layer.

    Attributes:
        channels, size: channels, and height and width, of the images.
        hidden: filters of every block.
        stride: 2, or 1 with 2 x 2 max-pooling, which rounds sizes up.
    """

    channels: int
    size: int
    hidden: int
    stride: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of the images, (C, H, W)."""
        return self.channels, self.size, self.size

    @property
    def sides(self) -> list[int]:
        """Side lengths of the feature maps: the input of each block, and the output of the fourth."""
        return [math.ceil(self.size / 2**block) for block in range(BLOCKS + 1)]

    @property
    def features(self) -> int:
        """Number of inputs of the linear layer, in the order channels, rows, columns."""
        return self.hidden * self.sides[-1] ** 2

    @property
    def outer_step_gflop(self) -> float:
        """GFLOP of convolutions and linear layers in an outer step, forward and backward."""
        total = 3 * self.features * WAY
        for block, side in enumerate(self.sides[:-1]):
            inputs = self.hidden if block else self.channels
            passes = 3 if block else 2  # no gradient with respect to the images
            total += passes * KERNEL**2 * inputs * self.hidden * math.ceil(side / self.stride) ** 2
        return 2 * total * INNER_BATCH * INNER_STEPS * TASKS / 1e9


NETWORKS = {"omniglot": Network(1, 28, hidden=64, stride=2), "mini-imagenet": Network(3, 84, hidden=32, stride=1)}


@dataclass(frozen=True)
class Protocol:
    """The rules in which contestants may differ, because one peer supports no others.

    Attributes:
        shots: images per class in a task: 10 for mini-batches of 10 out of 50 images, 2 for full batches of 10.
        inner_state: ``share`` (tasks start from a shared second moment of Adam, averaged afterwards) or ``reset``.
    """

    shots: int
    inner_state: str


PROTOCOLS = {"reptile": Protocol(shots=10, inner_state="share"), "full-batch": Protocol(shots=2, inner_state="reset")}


def same_padding(size: int, stride: int) -> tuple[int, int]:
    """Return TensorFlow's 'SAME' padding before and after an axis of ``size`` pixels."""
    total = max((math.ceil(size / stride) - 1) * stride + KERNEL - size, 0)
    return total // 2, total - total // 2


def noise_store(network: Network) -> np.ndarray:
    """Return random images (CLASSES * IMAGES_PER_CLASS, C, H, W) uint8, with classes contiguous."""
    shape = (CLASSES * IMAGES_PER_CLASS, *network.image_shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@dataclass(frozen=True)
class Case:
    """The initial weights of all contestants and, for the check, their images.

    Attributes:
        weights: by torchreptile's names: convs.0.weight (O, I, h, w), norms.0.weight, ..., head.weight (way, features).
        images: (outer steps, INNER_STEPS, TASKS, INNER_BATCH, C, H, W) uint8.
        labels: (outer steps, INNER_STEPS, TASKS, INNER_BATCH) int64.
        seed: seed of torch's generator, from which torchreptile draws the same images.
        eps: Adam's epsilon: ADAM_EPS for timing, CHECK_EPS for the check. With a tiny epsilon, Adam's first step is the
            gradient's sign, which amplifies rounding to the size of the learning rate, so that fp32 losses differ in
            the third digit. A large epsilon makes the step smooth.
    """

    weights: dict[str, np.ndarray]
    images: np.ndarray
    labels: np.ndarray
    seed: int
    eps: float

    def save(self, path: str) -> None:
        """Write the case to an .npz file."""
        parts = {f"weights/{name}": value for name, value in self.weights.items()}
        np.savez(path, images=self.images, labels=self.labels, seed=self.seed, eps=self.eps, **parts)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str) -> Case:
        """Read a case from an .npz file."""
        with np.load(path) as parts:
            weights = {name[8:]: parts[name] for name in parts.files if name.startswith("weights/")}
            return cls(weights, parts["images"], parts["labels"], int(parts["seed"]), float(parts["eps"]))
