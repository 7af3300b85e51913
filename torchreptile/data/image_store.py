"""ImageStore: a data set as one uint8 tensor with contiguous classes, addressed by index.

A store is small enough to live on the device (Omniglot: 25 MB), so sampling an episode is index
arithmetic: no DataLoader, no decoding, no copies between host and device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from torchreptile.core.errors import DataError
from torchreptile.core.files import open_regular, replacing
from torchreptile.core.sealed_json import parse_json

FORMAT = "torchreptile-images-1"
MAX_BYTES = 2**42  # of a file; that of mini-ImageNet's training pictures has 0.8 GB


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Images of many classes, in memory.

    Attributes:
        images: (N, C, H, W) uint8, the images of each class one after another; 0 is black, 255 is white. Or series,
            (N, C, L) uint8.
        class_sizes: (K,) int64, the number of images in each class; they add up to N.
        class_names: the K names of the classes, such as ``"Greek/character03"``.
        name: name of the data set, used in messages and files.
        image_names: the N names of the images, such as their files, or nothing where they have none.

    Raises:
        DataError: the images are not such a tensor, or sizes and names do not fit them.

    Example:
        >>> import torch
        >>> import torchreptile as tr
        >>> images = torch.randint(0, 256, (9, 1, 28, 28), dtype=torch.uint8)
        >>> store = tr.ImageStore(images, torch.tensor([4, 3, 2]), ("alpha", "beta", "gamma"), name="letters")
        >>> len(store), store.image_shape
        (3, (1, 28, 28))
        >>> store.select([2, 0]).class_names
        ('gamma', 'alpha')
        >>> len(store.with_rotations())
        12
    """

    images: Tensor
    class_sizes: Tensor
    class_names: tuple[str, ...]
    name: str
    image_names: tuple[str, ...] = ()
    targets: ClassVar[int] = 0  # numbers to predict per example: none, images have labels

    def __post_init__(self) -> None:
        adds_up = int(self.class_sizes.sum()) == len(self.images)
        # Three axes are series, or images without one of their axes, whose number is then another.
        if self.images.dtype != torch.uint8 or self.images.ndim not in ((3, 4) if adds_up else (4,)):
            raise DataError(
                f"{self.name}: images must be a (N, C, H, W) uint8 tensor, "
                f"not {tuple(self.images.shape)} {self.images.dtype}; series must be (N, C, L) uint8"
            )
        if len(self.class_names) != len(self.class_sizes) or not adds_up:
            raise DataError(
                f"{self.name}: {len(self.class_names)} class names, {len(self.class_sizes)} class sizes adding "
                f"up to {int(self.class_sizes.sum())}, but {len(self.images)} images"
            )
        if self.image_names and len(self.image_names) != len(self.images):
            raise DataError(f"{self.name}: {len(self.image_names)} image names, but {len(self.images)} images")

    @classmethod
    def from_arrays(cls, classes: Mapping[str, Any], name: str = "arrays", series: bool = False) -> ImageStore:
        """Return a store of images that are in memory.

        Args:
            classes: for every class name its images, a tensor or array (n, C, H, W) or (n, H, W) uint8; classes may
                have different numbers of them.
            name: what the data set is called.
            series: the arrays are series, (n, C, L) or (n, L) uint8, in place of images.

        Raises:
            DataError: no classes, or images of another type or of several shapes.

        Example:
            >>> import numpy as np
            >>> classes = {"a": np.zeros((20, 28, 28), np.uint8), "b": np.ones((9, 28, 28), np.uint8)}
            >>> store = ImageStore.from_arrays(classes)
            >>> store.image_shape, store.class_sizes.tolist()
            ((1, 28, 28), [20, 9])
            >>> ImageStore.from_arrays({"walking": np.zeros((9, 6, 128), np.uint8)}, series=True).image_shape
            (6, 128)
        """
        axes, form = (3, "(n, C, L)") if series else (4, "(n, C, H, W)")
        if not classes:
            raise DataError(f"{name}: there are no classes")
        tensors: list[Tensor] = []
        for label, images in classes.items():
            tensor = torch.as_tensor(images)
            tensor = tensor[:, None] if tensor.ndim == axes - 1 else tensor
            if tensor.dtype != torch.uint8 or tensor.ndim != axes or not tensor.numel():
                raise DataError(
                    f"{name}: class {label} has {'series' if series else 'images'} of shape {tuple(tensor.shape)} "
                    f"{tensor.dtype}; they must be {form} uint8, one or more"
                )
            if tensors and tensor.shape[1:] != tensors[0].shape[1:]:
                raise DataError(
                    f"{name}: class {label} has images of shape {tuple(tensor.shape[1:])}, others have "
                    f"{tuple(tensors[0].shape[1:])}; all must have one"
                )
            tensors.append(tensor.cpu())
        sizes = torch.tensor([len(tensor) for tensor in tensors])
        return cls(torch.cat(tensors), sizes, tuple(map(str, classes)), name)

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.images.device

    @property
    def class_starts(self) -> Tensor:
        """(K,) int64, the index of the first image of each class."""
        return self.class_sizes.cumsum(0) - self.class_sizes

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape (C, H, W) of an image, or (C, L) of a series."""
        return tuple(self.images.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of class names, sizes, shape and pixels, in hexadecimal; equal exactly when the data are equal."""
        digest = hashlib.sha256()
        head = [list(self.class_names), self.class_sizes.tolist(), list(self.images.shape)]
        digest.update(json.dumps(head).encode())
        digest.update(self.images.cpu().contiguous().numpy().reshape(-1).data)  # in place: no copy of a large store
        return digest.hexdigest()

    def names_of_images(self) -> tuple[str, ...]:
        """Return the N names of the images: those they have, else the class and the place in it, counted from 0.

        Example:
            >>> import torch
            >>> ImageStore(torch.zeros(3, 1, 9, 9).byte(), torch.tensor([2, 1]), ("a", "b"), "ab").names_of_images()
            ('a#0', 'a#1', 'b#0')
        """
        if self.image_names:
            return self.image_names
        sizes = zip(self.class_names, self.class_sizes.tolist(), strict=True)
        return tuple(f"{name}#{place}" for name, size in sizes for place in range(size))

    def inverted(self) -> ImageStore:
        """Return a copy of the store with black and white exchanged."""
        return replace(self, images=255 - self.images)

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.class_names)

    def select(self, classes: Sequence[int] | Tensor) -> ImageStore:
        """Return a store with only the classes of these indices, in this order.

        Raises:
            DataError: ``classes`` is empty.
        """
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
            image_names=tuple(self.image_names[row] for row in rows.tolist()) if self.image_names else (),
        )

    def without(self, images: Sequence[int]) -> ImageStore:
        """Return a store without the images of these indices; a class may be left empty."""
        remains = torch.ones(len(self.images), dtype=torch.bool)
        remains[list(images)] = False
        classes = torch.arange(len(self)).repeat_interleave(self.class_sizes.cpu())
        return replace(
            self,
            images=self.images[remains.to(self.images.device)],
            class_sizes=classes[remains].bincount(minlength=len(self)).to(self.class_sizes.device),
            image_names=tuple(compress(self.image_names, remains.tolist())),
        )

    def with_rotations(self) -> ImageStore:
        """Return a store with every class rotated by 0, 90, 180 and 270 degrees; each rotation is a separate class.

        Raises:
            DataError: the images are not square.
        """
        if len(self.image_shape) != 3 or self.image_shape[1] != self.image_shape[2]:
            raise DataError(
                f"{self.name}: only square images can be rotated, and these have the shape {self.image_shape}"
            )
        rotated = [torch.rot90(self.images, quarter, dims=(-2, -1)) for quarter in range(4)]
        return replace(
            self,
            images=torch.cat(rotated),
            class_sizes=self.class_sizes.repeat(4),
            class_names=tuple(f"{name}/rot{90 * quarter:03d}" for quarter in range(4) for name in self.class_names),
            image_names=4 * self.image_names,
        )

    def to(self, device: torch.device | str) -> ImageStore:
        """Return the store with its tensors on ``device``."""
        return replace(self, images=self.images.to(device), class_sizes=self.class_sizes.to(device))

    def save(self, path: Path) -> None:
        """Write the store to one safetensors file, atomically: other processes see the complete file or none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {
            "format": FORMAT,
            "name": self.name,
            "class_names": json.dumps(self.class_names),
            "fingerprint": self.fingerprint,
        }
        if self.image_names:
            metadata["image_names"] = json.dumps(self.image_names)
        with replacing(path) as temporary, temporary.open("r+b") as file:
            _write(file, metadata, self.class_sizes, self.images)

    @classmethod
    def load(cls, path: Path, source: str = "") -> ImageStore:
        """Read a store written by :meth:`save` or ``building``, and check its fingerprint.

        The images stay memory-mapped.

        Args:
            path: the file.
            source: identifies what the file must have been made from, as in ``Plan.source``; empty for any.

        Raises:
            DataError: the file is missing, damaged, of another format or made from something else.
        """
        try:
            open_regular(path, MAX_BYTES).close()
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise DataError(f"{path}: not an image store of this version; delete it to have it made again")
                if source and metadata.get("source") != source:
                    raise DataError(f"{path}: made from files that have changed since; delete it to have it made again")
                store = cls(
                    images=file.get_tensor("images"),
                    class_sizes=file.get_tensor("class_sizes"),
                    class_names=tuple(map(str, parse_json(metadata["class_names"]))),
                    name=metadata["name"],
                    image_names=tuple(map(str, parse_json(metadata.get("image_names", "[]")))),
                )
                sizes = store.class_sizes
                if sizes.dtype != torch.int64 or sizes.ndim != 1 or not bool((sizes >= 0).all()):
                    raise DataError(f"{path}: its class sizes are damaged; delete it to have it made again")
                if store.fingerprint != metadata["fingerprint"]:  # safetensors checks the header, not the pixels
                    raise DataError(f"{path}: its pixels have changed since it was written; delete it")
                return store
        except (OSError, KeyError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
            raise DataError(f"{path}: unreadable image store ({error}); delete it to have it made again") from error


def _write(file: BinaryIO, metadata: dict[str, str], class_sizes: Tensor, images: Tensor) -> None:
    """Write a safetensors file of both tensors into ``file``.

    safetensors' own ``save_file`` moves another file over it: one that is not locked, which a process that removes
    abandoned files would take for one, and whose temporary name is not known to be removed if this process is killed.
    """
    sizes, pixels = class_sizes.cpu().contiguous(), images.cpu().contiguous()
    start, end = sizes.nbytes, sizes.nbytes + pixels.nbytes
    head = {
        "__metadata__": metadata,
        "class_sizes": {"dtype": "I64", "shape": list(sizes.shape), "data_offsets": [0, start]},
        "images": {"dtype": "U8", "shape": list(pixels.shape), "data_offsets": [start, end]},
    }
    text = json.dumps(head).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # the tensors begin at a multiple of 8 bytes
    file.write(len(text).to_bytes(8, "little") + text)
    file.write(sizes.numpy().data)
    file.write(pixels.numpy().data)
