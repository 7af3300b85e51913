"""Custom networks against the naive loop: a small ResNet and a transformer encoder, on random images.

    python benchmarks/own_networks.py [--rounds 10] [--out own-networks]

Times every execution that accepts any module in one run, taking turns as in `reptile bench`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from rich.console import Console
from torch import Tensor, nn

from torchreptile.cli.commands.bench import print_bench
from torchreptile.core.config import Config
from torchreptile.experiments.benchmark.bench import bench
from torchreptile.experiments.benchmark.workloads import NAIVE, Candidate

SHAPE = (1, 28, 28)
TOKENS = 16


@dataclass(frozen=True)
class Settings:
    """What to measure."""

    rounds: int = 10
    out: Path = Path("own-networks")
    device: str = "cpu"


class ResNet(nn.Module):
    """A ResNet of three residual blocks with 16, 32 and 64 filters and ordinary BatchNorm."""

    def __init__(self, image_shape: tuple[int, int, int], way: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(image_shape[0], 16, 3, padding=1)
        widths = [16, 16, 32, 64]
        self.stages = nn.ModuleList(Stage(a, b) for a, b in itertools.pairwise(widths))
        self.head = nn.Linear(64, way)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, way)."""
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Stage(nn.Module):
    """A residual block that halves the height and width of the feature map."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride=2, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(after) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / 2, W / 2)."""
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(y)) + self.shortcut(x))


class Transformer(nn.Module):
    """A two-layer encoder over 16 tokens, which are patches of 7 x 7 pixels."""

    def __init__(self, image_shape: tuple[int, int, int], way: int) -> None:
        super().__init__()
        channels, side, _ = image_shape
        self.patch = side // 4
        self.embed = nn.Linear(channels * self.patch**2, 64)
        self.places = nn.Parameter(torch.zeros(TOKENS, 64))
        layer = nn.TransformerEncoderLayer(64, nhead=4, dim_feedforward=128, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, way)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, way)."""
        patches = F.unfold(x, self.patch, stride=self.patch).transpose(1, 2)
        out: Tensor = self.head(self.encoder(self.embed(patches) + self.places).mean(1))
        return out


def main(settings: Settings) -> None:
    """Measure both networks, print and save."""
    settings.out.mkdir(parents=True, exist_ok=True)
    candidates = [Candidate(NAIVE), *map(Candidate, ("loop", "vmap", "compiled"))]
    for network in (ResNet, Transformer):
        result = bench(
            Config(), SHAPE, candidates, torch.device(settings.device), settings.rounds, memory=False, network=network
        )
        print(network.__name__)
        print_bench(result, Console())
        (settings.out / f"{network.__name__.lower()}.json").write_text(result.to_json())


if __name__ == "__main__":
    main(tyro.cli(Settings))
