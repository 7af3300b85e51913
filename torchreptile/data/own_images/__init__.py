"""The user's own images, in class folders or listed in a csv file."""

from __future__ import annotations

from torchreptile.data.own_images.dataset import Form as Form
from torchreptile.data.own_images.dataset import load as load
from torchreptile.data.own_images.dataset import scan as scan
from torchreptile.data.own_images.dataset import split as split
