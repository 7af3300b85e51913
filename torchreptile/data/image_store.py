"""ImageStore: a data set as one uint8 tensor, classes contiguous, addressed by index alone.

A store is small enough to live on the device (Omniglot: 25 MB), so sampling an episode is index
arithmetic: no DataLoader, no decoding, no copies between host and device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from torchreptile.core.errors import DataError
from torchreptile.core.files import replacing

FORMAT = "torchreptile-images-1"


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Images of many classes.

    Attributes:
        images: (N, C, H, W) uint8, every class's images one after another; 0 is black, 255 is white.
        class_sizes: (K,) int64, how many images each class has; they add up to N.
        class_names: K names, for people: ``"Greek/character03"``.
        name: what the data set is called, for people and for files.
    """

    images: Tensor
    class_sizes: Tensor
    class_names: tuple[str, ...]
    name: str
    targets: ClassVar[int] = 0  # numbers to predict: there are labels instead

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError(
                f"{self.name}: images must be a (N, C, H, W) uint8 tensor, "
                f"not {tuple(self.images.shape)} {self.images.dtype}"
            )
        if len(self.class_names) != len(self.class_sizes) or int(self.class_sizes.sum()) != len(self.images):
            raise DataError(
                f"{self.name}: {len(self.class_names)} class names, {len(self.class_sizes)} class sizes adding "
                f"up to {int(self.class_sizes.sum())}, but {len(self.images)} images"
            )

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    @property
    def class_starts(self) -> Tensor:
        """(K,) int64: the index of each class's first image."""
        return self.class_sizes.cumsum(0) - self.class_sizes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes, shape and pixels: equal exactly when the data are equal."""
        digest = hashlib.sha256()
        head = [list(self.class_names), self.class_sizes.tolist(), list(self.images.shape)]
        digest.update(json.dumps(head).encode())
        digest.update(self.images.cpu().contiguous().numpy().reshape(-1).data)  # in place: no copy of a large store
        return digest.hexdigest()

    def inverted(self) -> ImageStore:
        """Black for white and white for black, in memory of its own."""
        return replace(self, images=255 - self.images)

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def select(self, classes: Sequence[int] | Tensor) -> ImageStore:
        """A store of these classes alone, in this order."""
        chosen = torch.as_tensor(classes, dtype=torch.int64).cpu()
        if not len(chosen):
            raise DataError(f"{self.name}: no classes to select")
        starts, sizes = self.class_starts, self.class_sizes
        rows = torch.cat([torch.arange(int(starts[c]), int(starts[c] + sizes[c])) for c in chosen.tolist()])
        return replace(
            self,
            images=self.images[rows],
            class_sizes=sizes[chosen],
            class_names=tuple(self.class_names[c] for c in chosen.tolist()),
        )

    def without(self, images: Sequence[int]) -> ImageStore:
        """A store that lacks the images with these indices; a class may be left with none."""
        kept = torch.ones(len(self.images), dtype=torch.bool)
        kept[list(images)] = False
        owners = torch.arange(len(self)).repeat_interleave(self.class_sizes.cpu())
        return replace(
            self,
            images=self.images[kept.to(self.images.device)],
            class_sizes=owners[kept].bincount(minlength=len(self)).to(self.class_sizes.device),
        )

    def with_rotations(self) -> ImageStore:
        """Every class four times, turned by 0, 90, 180 and 270 degrees: each turn a class of its own."""
        turns = [torch.rot90(self.images, quarter, dims=(-2, -1)) for quarter in range(4)]
        return replace(
            self,
            images=torch.cat(turns),
            class_sizes=self.class_sizes.repeat(4),
            class_names=tuple(f"{name}/rot{90 * quarter:03d}" for quarter in range(4) for name in self.class_names),
        )

    def to(self, device: torch.device | str) -> ImageStore:
        """The same store with its tensors on ``device``."""
        return replace(self, images=self.images.to(device), class_sizes=self.class_sizes.to(device))

    def save(self, path: Path) -> None:
        """Write the store to one safetensors file, atomically: other processes see all of it or nothing."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(
                {"images": self.images.contiguous(), "class_sizes": self.class_sizes},
                temporary,
                metadata={
                    "format": FORMAT,
                    "name": self.name,
                    "class_names": json.dumps(self.class_names),
                    "fingerprint": self.fingerprint,
                },
            )

    @classmethod
    def load(cls, path: Path, source: str = "") -> ImageStore:
        """Read a store written by :meth:`save` or ``building``, and check its fingerprint.

        The images stay memory-mapped.

        Args:
            path: the file.
            source: what the file must have been made of, if it says so.

        Raises:
            DataError: the file is missing, damaged, of another format or made of something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise DataError(f"{path}: not an image store of this version; delete it to have it made again")
                if source and metadata.get("source") != source:
                    raise DataError(f"{path}: made of other files than are there now; delete it to have it made again")
                store = cls(
                    images=file.get_tensor("images"),
                    class_sizes=file.get_tensor("class_sizes"),
                    class_names=tuple(json.loads(metadata["class_names"])),
                    name=metadata["name"],
                )
                if store.fingerprint != metadata["fingerprint"]:  # safetensors guards the frame, not the pixels
                    raise DataError(f"{path}: its pixels have changed since it was written; delete it")
                return store
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise DataError(f"{path}: unreadable image store ({error}); delete it to have it made again") from error
