"""mini-ImageNet, read from any of its common layouts."""

from __future__ import annotations

from torchreptile.data.mini_imagenet.dataset import split as split
