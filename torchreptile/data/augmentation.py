"""Small random changes of training images: of drawings, for learners of raw pixels, and of any images, on request."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from torchreptile.core.config import TaskConfig
from torchreptile.data.episodes import Episodes
from torchreptile.data.functions.tables import Scale
from torchreptile.data.samplers import Sampler, Store

LARGEST_TURN = math.pi / 16  # radians, in either direction
LARGEST_SHIFT = 0.1  # share of the width or height, in either direction
DRAWS = 3  # random numbers per image: rotation, horizontal shift, vertical shift
LARGEST_SCALING, LARGEST_BRIGHTENING = 0.1, 0.2  # shares of size and brightness, in either direction
AUGMENTING_DRAWS = DRAWS + 3  # and scaling, brightness, mirroring


def jittered(images: Tensor, draws: Tensor, amount: float) -> Tensor:
    """Shift and rotate every image at random; pixels from outside the image are white.

    Args:
        images: (..., C, H, W) float, from 0 (ink) to 1 (paper).
        draws: (..., 3) float, uniform random numbers from 0 to 1.
        amount: the range of the jitter, as a share of ``LARGEST_TURN`` and ``LARGEST_SHIFT``.

    Returns:
        (..., C, H, W) float, by bilinear interpolation.
    """
    flat, by = images.flatten(0, -4), (2 * draws.flatten(0, -2) - 1) * amount
    grid = pixel_sources(flat, by[:, 0] * LARGEST_TURN, LARGEST_SHIFT * by[:, 1:])
    return (1 - F.grid_sample(1 - flat, grid, align_corners=False)).view_as(images)


@dataclass(frozen=True, eq=False)
class AugmentedSampler:
    """A sampler of training tasks whose images are changed at random, each independently.

    Attributes:
        sampler: draws the tasks.
        amount: the range of the changes, from 0 to 1; see :func:`augmented`.
        mirror: whether half of the images are mirrored.
    """

    sampler: Sampler
    amount: float
    mirror: bool

    @property
    def store(self) -> Store:
        """The source of the tasks; episodes are on its device."""
        return self.sampler.store

    @property
    def scale(self) -> Scale | None:
        """The standardisation of values that have units; None, as images have none."""
        return self.sampler.scale

    def sample(self, tasks: int, generator: torch.Generator) -> Episodes:
        """Draw ``tasks`` tasks, and then the changes; ``generator`` is the source of all randomness."""
        episodes = self.sampler.sample(tasks, generator)
        return replace(
            episodes,
            support_x=self._changed(episodes.support_x, generator),
            query_x=self._changed(episodes.query_x, generator),
        )

    def _changed(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return images (task, N, C, H, W), each changed by its own random numbers."""
        if not images.numel():
            return images
        draws = torch.rand(*images.shape[:2], AUGMENTING_DRAWS, generator=generator, device=generator.device)
        return augmented(images, draws.to(images.dtype), self.amount, self.mirror)


def augmenting(sampler: Sampler, task: TaskConfig) -> Sampler:
    """Return a sampler of training tasks whose images are changed as the settings ask; as it is if they do not."""
    return AugmentedSampler(sampler, task.augment, task.mirror) if task.augment or task.mirror else sampler


def augmented(images: Tensor, draws: Tensor, amount: float, mirror: bool) -> Tensor:
    """Mirror, rotate, shift, scale and brighten every image at random; its surroundings are its own reflection.

    Args:
        images: (..., C, H, W) float, from 0 to 1.
        draws: (..., 6) float, uniform random numbers from 0 to 1.
        amount: the range of all changes but mirroring, as a share of the largest.
        mirror: mirror an image left to right if its last number is above 0.5.

    Returns:
        (..., C, H, W) float from 0 to 1, by bilinear interpolation if ``amount`` is not 0.

    Example:
        >>> image = torch.tensor([[[0.0, 0.5, 1.0]]])
        >>> augmented(image, torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.9]), amount=0.0, mirror=True)
        tensor([[[1.0000, 0.5000, 0.0000]]])
    """
    flat, numbers = images.reshape(-1, *images.shape[-3:]), draws.reshape(-1, AUGMENTING_DRAWS)
    if mirror:
        flat = torch.where((numbers[:, 5] > 0.5)[:, None, None, None], flat.flip(-1), flat)
    if amount:
        by = (2 * numbers[:, :5] - 1) * amount
        angle, shift, scaling = by[:, 0] * LARGEST_TURN, LARGEST_SHIFT * by[:, 1:3], 1 + LARGEST_SCALING * by[:, 3]
        flat = F.grid_sample(
            flat, pixel_sources(flat, angle, shift, scaling), padding_mode="reflection", align_corners=False
        )
        flat = (flat * (1 + LARGEST_BRIGHTENING * by[:, 4])[:, None, None, None]).clamp(0, 1)
    return flat.view_as(images)


def pixel_sources(images: Tensor, angle: Tensor, shift: Tensor, scaling: Tensor | None = None) -> Tensor:
    """Return where the pixels of rotated, shifted and scaled images come from, for ``F.grid_sample``.

    Args:
        images: (N, C, H, W).
        angle: (N,) rotations, radians.
        shift: (N, 2) horizontal and vertical shifts, as shares of width and height.
        scaling: (N,) factors; None for 1.

    Returns:
        (N, H, W, 2) coordinates from -1 to 1 in the image, in its dtype.
    """
    high = images.shape[-2] / images.shape[-1]
    cos, sin = angle.cos(), angle.sin()
    if scaling is not None:
        cos, sin = scaling * cos, scaling * sin
    # Both axes run from -1 to 1, so a rotation of what is not square needs their proportion, and shifts are doubled.
    turn = torch.stack([torch.stack([cos, -sin * high], 1), torch.stack([sin / high, cos], 1)], 1)
    affine = torch.cat([turn, 2 * shift[:, :, None]], 2).to(images.dtype)
    return F.affine_grid(affine, list(images.shape), align_corners=False)
