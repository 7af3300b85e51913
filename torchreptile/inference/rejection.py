"""Recognise images of none of the classes, by a threshold that is calibrated on the support set.

A softmax over the classes cannot say "none of these", and adapted networks are confident about anything. Three
statistics of the logits tell known images from others: the margin of the best class over the rest, which is small for
images of similar but other classes; the largest logit, and the distance of all logits from those of the best class's
support images, which show images of no kind that the network knows. How large they are for known images is measured on
support images that were left out of an adaptation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from torchreptile.algorithms.base import Adapted, Algorithm
from torchreptile.core.errors import ConfigError
from torchreptile.data.augmentation import LARGEST_SHIFT, LARGEST_TURN, pixel_sources
from torchreptile.inference.finite import require_finite_predictions
from torchreptile.models.losses import answerable

NONE_OF_THESE = "none of these"
FOLDS = 5  # at most so many adaptations for a calibration
COPIES = 3  # altered copies of an image, where images are few
ENOUGH = 20  # images left out; with fewer, their spread is too uncertain, and altered copies are classified too
STATISTICS = 3
LEAST_SPREAD = 1e-3  # standard deviations below it say that all calibration images are one image

Predict = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Adapts to support images (S, C, H, W) with labels (S,), and returns their logits (S, K) and those (N, K) of images
(N, C, H, W)."""


@dataclass(frozen=True)
class Rejection:
    """The calibrated threshold below which an image counts as none of the classes.

    Attributes:
        means: for each of K classes the mean logits of its support images, (K, K).
        centre: means of the three statistics over the calibration images.
        spread: their standard deviations.
        threshold: an image is rejected if the smallest of its standardised statistics, plus the log of its largest
            class probability, is below it.
        rate: share of known images that the threshold was chosen to reject, 0 to 1.
    """

    means: tuple[tuple[float, ...], ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    threshold: float
    rate: float

    def to_json(self) -> dict[str, Any]:
        """Return the numbers for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Return what :meth:`to_json` gave.

        Raises:
            LookupError, TypeError, ValueError: it is not that.
        """
        means = tuple(tuple(row) for row in content["means"])
        centre, spread = tuple(content["centre"]), tuple(content["spread"])
        threshold, rate = content["threshold"], content["rate"]
        numbers = [*(number for row in means for number in row), *centre, *spread, threshold, rate]
        if not all(type(number) is float and math.isfinite(number) for number in numbers):
            raise ValueError("rejection must hold finite numbers")
        if {len(centre), len(spread)} != {STATISTICS} or any(len(row) != len(means) for row in means):
            raise ValueError("rejection has other statistics than this version")
        if min(spread) <= 0 or not 0 < rate < 1:
            raise ValueError("rejection has a spread or a rate that no calibration gives")
        return cls(means, centre, spread, threshold, rate)

    def probability_of_none(self, logits: Tensor) -> Tensor:
        """Return the probability (N,) that images with these logits (N, K) show none of the classes.

        The probability of a class is what remains, shared out by the softmax. An image is rejected exactly if none of
        the classes is then as probable as none of them.
        """
        found, means = logits.double(), torch.tensor(self.means, dtype=torch.float64, device=logits.device)
        standardised = (statistics(found, means) - found.new_tensor(self.centre)) / found.new_tensor(self.spread)
        return torch.sigmoid(self.threshold - standardised.min(1).values)

    def with_none(self, logits: Tensor) -> Tensor:
        """Return the probabilities (N, K + 1) of all classes and, last, of none of them."""
        none = self.probability_of_none(logits).unsqueeze(1)
        classes = logits.double().softmax(1)
        return torch.cat([(1 - none) * classes, none], 1)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What adaptations without them find of support images.

    Attributes:
        statistics: (N, 3) see :func:`statistics`.
        confidence: (N,) the largest class probability.
    """

    statistics: Tensor
    confidence: Tensor


def statistics(logits: Tensor, means: Tensor) -> Tensor:
    """Return three statistics of each image, which are large for images of the classes.

    Args:
        logits: (N, K).
        means: (K, K) the mean logits of each class's support images.

    Returns:
        (N, 3): the log odds of the most probable class, the largest logit, and minus the distance of the logits from
        the mean of that class.
    """
    best = logits.max(1)
    others = logits.scatter(1, best.indices[:, None], -torch.inf)
    distance = (logits - means[best.indices]).square().sum(1).sqrt()
    return torch.stack([best.values - others.logsumexp(1), best.values, -distance], 1)


def calibrated(held_out: HeldOut, means: Tensor, rate: float) -> Rejection:
    """Choose the threshold that rejects a share ``rate`` of known images.

    Args:
        held_out: what is known of images of the classes that were not adapted to; at least two.
        means: (K, K) the mean logits of each class's support images, for the classifier itself.
        rate: share of known images to reject, above 0 and below 1.
    """
    known = held_out.statistics
    centre, spread = known.mean(0), known.std(0).clamp(min=LEAST_SPREAD)
    smallest = ((known - centre) / spread).min(1).values + held_out.confidence.log()
    rows = tuple(tuple(row) for row in means.double().tolist())
    threshold = float(torch.quantile(smallest, rate))
    return Rejection(rows, tuple(centre.tolist()), tuple(spread.tolist()), threshold, rate)


def rejection_of(
    algorithm: Algorithm,
    adapt: Callable[[Tensor, Tensor], Adapted],
    adapted: Adapted,
    images: Tensor,
    labels: Tensor,
    rate: float,
    generator: torch.Generator,
) -> Rejection:
    """Calibrate the rejection of an adapted network on its support set.

    Args:
        algorithm: named in errors.
        adapt: adapts to images (S, C, H, W) with labels (S,).
        adapted: the network, adapted to the entire support set.
        images: (S, C, H, W) float, each pixel from 0 to 1.
        labels: (S,) int64, from 0 to K - 1.
        rate: share of known images to reject, above 0 and below 1.
        generator: see :func:`held_out`.

    Raises:
        DivergedError: the network's outputs for an image are not finite numbers.
    """

    def predict(support: Tensor, its: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        without = adapt(support, its)
        own, logits = without.transductive(support[None])[0], without.inductive(queries[None])[0]
        require_finite_predictions(algorithm, answerable(torch.cat([own, logits])), "images")
        return own, logits

    found = held_out(predict, images, labels, generator)
    return calibrated(found, mean_logits(adapted.transductive(images[None])[0], labels), rate)


def mean_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean logits (K, K) of each class's images, from their logits (S, K) and labels (S,)."""
    return torch.stack([logits[labels == label].double().mean(0) for label in range(logits.shape[1])])


def check_rate(rate: float | None) -> None:
    """Refuse a share of known images to reject that is not between 0 and 1.

    Raises:
        ConfigError: it is not.
    """
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1):
        raise ConfigError(
            f"reject is {rate!r}; it is the share of known images to reject, above 0 and below 1, such as 0.05"
        )


def held_out(predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> HeldOut:
    """Return what is found of support images by adaptations without them.

    Every adaptation leaves out one image of each class that has at least two. Of a class with a single image, altered
    copies are classified instead: shifted and rotated by up to twice the amounts of training's jitter. Where few images
    are left out in all, their altered copies are classified as well.

    Args:
        predict: adapts and classifies.
        images: (S, C, H, W) float, each pixel from 0 to 1.
        labels: (S,) int64, from 0 to K - 1.
        generator: source of the order in which images are left out, and of the changes to the copies; on the images'
            device.
    """
    sizes = labels.bincount()
    order = torch.rand(len(labels), generator=generator, device=labels.device).argsort()
    turn = torch.empty_like(labels)  # the fold in which an image is left out
    for label, size in enumerate(sizes.tolist()):
        turn[order[labels[order] == label]] = torch.arange(size, device=labels.device)
    left_out = sizes[labels] > 1
    few = int(left_out.sum()) < ENOUGH
    found: list[tuple[Tensor, Tensor]] = []

    def classify(support: Tensor, its: Tensor, queries: Tensor) -> None:
        support_logits, logits = predict(support, its, queries)
        known = statistics(logits.double(), mean_logits(support_logits, its))
        found.append((known, logits.double().softmax(1).max(1).values))

    for fold in range(min(FOLDS, int(sizes.max()))):
        out = left_out & (turn == fold)
        if bool(out.any()):
            queries = images[out]
            if few:
                queries = torch.cat([queries, altered(torch.cat(COPIES * [queries]), generator)])
            classify(images[~out], labels[~out], queries)
    if bool((~left_out).any()):
        repeated = torch.cat(COPIES * [images[~left_out]])
        classify(images, labels, altered(repeated, generator))
    return HeldOut(*map(torch.cat, zip(*found, strict=True)))


def altered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images (N, C, H, W) shifted and rotated at random, or series (N, C, L) shifted.

    What comes from outside continues the edge.
    """
    numbers = 2 * torch.rand(len(images), 3, generator=generator, device=images.device) - 1
    angle, shift = 2 * LARGEST_TURN * numbers[:, 0], 2 * LARGEST_SHIFT * numbers[:, 1:]
    series = images.dim() == 3
    if series:  # an image of one row, which stays in it
        images, angle, shift = images.unsqueeze(2), 0 * angle, torch.stack([shift[:, 0], 0 * shift[:, 0]], 1)
    changed = F.grid_sample(images, pixel_sources(images, angle, shift), padding_mode="border", align_corners=False)
    return changed.squeeze(2) if series else changed


def none_label(classes: NDArray[Any]) -> Any:
    """Return the label of rejected images: ``none of these`` among strings, and -1 among numbers.

    Raises:
        ConfigError: a class has this label, or the labels are truth values or unsigned numbers.
    """
    if classes.dtype.kind not in "Uif":
        raise ConfigError(f"reject needs labels that are strings or signed numbers; they are {classes.dtype.name}")
    label: Any = NONE_OF_THESE if classes.dtype.kind == "U" else -1
    if label in classes.tolist():
        raise ConfigError(f"{label!r} is the label of what reject rejects, and also that of a class; rename the class")
    return label


def with_none_label(classes: NDArray[Any]) -> NDArray[Any]:
    """Return the sorted labels with that of rejected images after them."""
    return np.array([*classes.tolist(), none_label(classes)])
