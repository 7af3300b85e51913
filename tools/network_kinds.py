"""Small networks of many kinds, each as its users write it, for tools/network_matrix.py.

Each is called with the shape (C, H, W) of an image and the number of outputs. None imports another package: the ResNets
and the ViT are written out in the style of torchvision and timm.
"""

# ruff: noqa: D102, D103 - forward is forward, and a function that makes a module is described by its row

from __future__ import annotations

import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Shape = tuple[int, int, int]
WIDTH = 8


class Kind(nn.Module):
    """Two inputs of every network, and a head for ``features`` numbers per image."""

    def __init__(self, shape: Shape, outputs: int, features: int = WIDTH) -> None:
        super().__init__()
        self.shape = shape
        self.make()
        self.head = nn.Linear(features, outputs)

    def make(self) -> None:
        """Make the layers below the head."""
        self.conv = nn.Conv2d(self.shape[0], WIDTH, 3, padding=1)

    def maps(self, x: Tensor) -> Tensor:
        """Return maps (B, WIDTH, h, w) of images."""
        out: Tensor = self.conv(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.maps(x).mean((2, 3)))
        return out


class Tokens(Kind):
    """The rows of an image as tokens (B, H, WIDTH), which ``mix`` changes."""

    def make(self) -> None:
        channels, _, width = self.shape
        self.embed = nn.Linear(channels * width, WIDTH)
        self.more()

    def more(self) -> None:
        """Make the layers that mix tokens."""

    def mix(self, t: Tensor) -> Tensor:
        """Return tokens (B, H, WIDTH)."""
        return t

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.mix(self.embed(x.transpose(1, 2).flatten(2))).mean(1))
        return out


# -------------------------------------------------------------------------------- linear, convolutional


def linear(shape: Shape, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], outputs))


class View(Kind):
    """A conv net that flattens with view."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__(shape, outputs, WIDTH * (shape[1] // 2) * (shape[2] // 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        out: Tensor = self.head(x.view(x.size(0), -1))
        return out


class ViewOfColumns(Kind):
    """A conv net whose maps become tokens with permute and view."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.head(x.view(x.size(0), x.size(1), -1).permute(0, 2, 1).contiguous().view(-1, WIDTH)
                                .view(x.size(0), -1, WIDTH).amax(1))  # fmt: skip
        return out


def with_batch_norm(shape: Shape, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * WIDTH, outputs),
    )  # fmt: skip


class Depthwise(Kind):
    """Depthwise and pointwise convolutions, squeeze and excitation, hard swish: MobileNet's block."""

    def make(self) -> None:
        self.stem, self.norm = nn.Conv2d(self.shape[0], WIDTH, 1), nn.BatchNorm2d(WIDTH)
        self.depth = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH, bias=False)
        self.squeeze, self.excite = nn.Conv2d(WIDTH, 2, 1), nn.Conv2d(2, WIDTH, 1)

    def maps(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.depth(self.stem(x))))
        return x * torch.sigmoid(self.excite(F.silu(self.squeeze(F.adaptive_avg_pool2d(x, 1)))))


class Transposed(Kind):
    """Dilated, strided and transposed convolutions, upsampling and a skip connection by concatenation: a U-Net."""

    def make(self) -> None:
        self.down = nn.Conv2d(self.shape[0], WIDTH, 3, stride=2, padding=2, dilation=2)
        self.up = nn.ConvTranspose2d(WIDTH, WIDTH, 2, stride=2)
        self.out = nn.Conv2d(WIDTH + self.shape[0], WIDTH, 1)

    def maps(self, x: Tensor) -> Tensor:
        up = F.interpolate(self.up(F.gelu(self.down(x))), size=x.shape[-2:])
        out: Tensor = self.out(torch.cat([up, x], 1))
        return out


def convolved_signal(shape: Shape, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(2), nn.Conv1d(shape[0], WIDTH, 5, stride=2), nn.PReLU(), nn.AdaptiveMaxPool1d(3), nn.Flatten(),
        nn.Linear(3 * WIDTH, outputs),
    )  # fmt: skip


def grouped(norm: Callable[[int], nn.Module]) -> Callable[[Shape, int], nn.Module]:
    """Return a conv net with this normalisation."""

    class Normalised(Kind):
        def make(self) -> None:
            super().make()
            self.norm = norm(WIDTH)

        def maps(self, x: Tensor) -> Tensor:
            return F.relu(self.norm(self.conv(x)))

    return Normalised


class ConvNeXt(Kind):
    """LayerNorm over the channels of a permuted map, layer scale, a residual connection."""

    def make(self) -> None:
        super().make()
        self.norm, self.mlp = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)
        self.scale = nn.Parameter(1e-2 * torch.ones(WIDTH))

    def maps(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x + (self.scale * F.gelu(self.mlp(self.norm(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)


class ResNet(Kind):
    """Basic blocks in torchvision's style: BatchNorm with running averages, in-place ReLU, a strided shortcut."""

    def make(self) -> None:
        self.conv1, self.bn1 = nn.Conv2d(self.shape[0], WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH)
        self.relu, self.pool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        self.conv2, self.bn2 = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH)
        self.conv3, self.bn3 = nn.Conv2d(WIDTH, WIDTH, 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTH)
        self.downsample = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1, 2, bias=False), nn.BatchNorm2d(WIDTH))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn1(self.conv1(x))))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))
        out += self.downsample(x)
        relu: Tensor = self.relu(out)
        return relu


def drop_path(x: Tensor, rate: float, training: bool) -> Tensor:
    """Drop entire residual branches, as timm does."""
    if not training:
        return x
    shape = (x.shape[0],) + (1,) * (x.ndim - 1)
    return x * x.new_empty(shape).bernoulli_(1 - rate).div_(1 - rate)


class TimmResNet(Kind):
    """A block in timm's style: the last BatchNorm begins at zero, DropPath, an average-pooled shortcut."""

    def make(self) -> None:
        super().make()
        self.bn1, self.act1 = nn.BatchNorm2d(WIDTH), nn.SiLU(inplace=True)
        self.conv2, self.bn2 = nn.Conv2d(WIDTH, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH)
        nn.init.zeros_(self.bn2.weight)
        self.downsample = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(WIDTH, WIDTH, 1, bias=False))

    def maps(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv(x)))
        x = drop_path(self.bn2(self.conv2(x)), 0.2, self.training) + self.downsample(x)
        return self.act1(x)  # type: ignore[no-any-return]


class DenseNet(Kind):
    """Dense blocks: every layer sees the concatenated maps of all before it."""

    def make(self) -> None:
        self.first = nn.Conv2d(self.shape[0], 4, 3, padding=1)
        self.second = nn.Sequential(nn.BatchNorm2d(self.shape[0] + 4), nn.ReLU(), nn.Conv2d(self.shape[0] + 4, 4, 1))

    def maps(self, x: Tensor) -> Tensor:
        first = F.relu(self.first(x))
        return torch.cat([first, self.dense(torch.cat([x, first], 1))], 1)

    def dense(self, x: Tensor) -> Tensor:
        """Return the maps of the second layer."""
        out: Tensor = self.second(x)
        return out


class Checkpointed(DenseNet):
    """A layer that is computed again in the backward pass."""

    def dense(self, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.second, x, use_reentrant=False)
        return out


# -------------------------------------------------------------------------------- recurrent, attention


def recurrent(layer: Callable[[], nn.Module]) -> Callable[[Shape, int], nn.Module]:
    """Return a network that reads the rows of an image with a recurrent layer."""

    class Recurrent(Tokens):
        def more(self) -> None:
            self.layer = layer()

        def mix(self, t: Tensor) -> Tensor:
            out: Tensor = self.layer(t)[0]
            return out

    return Recurrent


class Attention(Tokens):
    """MultiheadAttention with dropout on its weights."""

    def more(self) -> None:
        self.layer = nn.MultiheadAttention(WIDTH, 2, dropout=0.3, batch_first=True)

    def mix(self, t: Tensor) -> Tensor:
        out: Tensor = self.layer(t, t, t)[0]
        return out


class Transformer(Tokens):
    """TransformerEncoder as torch has it, with its dropout."""

    def more(self) -> None:
        layer = nn.TransformerEncoderLayer(WIDTH, 2, dim_feedforward=16, dropout=0.1, batch_first=True, norm_first=True)
        self.layer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def mix(self, t: Tensor) -> Tensor:
        out: Tensor = self.layer(t)
        return out


class ViT(nn.Module):
    """A vision transformer in timm's style: patches, class token, positions, qkv in one layer, DropPath."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.patch = nn.Conv2d(channels, WIDTH, 4, 4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, (height // 4) * (width // 4) + 1, WIDTH))
        self.norm1, self.norm2, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))
        self.head = nn.Linear(WIDTH, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        images, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(images, tokens, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(images, tokens, width)
        x = x + drop_path(self.proj(attended), 0.1, self.training)
        x = x + drop_path(self.mlp(self.norm2(x)), 0.1, self.training)
        out: Tensor = self.head(self.norm(x)[:, 0])
        return out


class Mixer(Tokens):
    """MLP-Mixer: layers over tokens and over channels, with einsum."""

    def more(self) -> None:
        self.over_tokens = nn.Parameter(0.3 * torch.randn(self.shape[1], self.shape[1]))
        self.over_channels, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

    def mix(self, t: Tensor) -> Tensor:
        t = t + torch.einsum("bnc,nm->bmc", self.norm(t), self.over_tokens)
        return t + F.gelu(self.over_channels(t))


# -------------------------------------------------------------------------------- random numbers


def with_dropout(shape: Shape, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(shape[0], WIDTH, 3), nn.Dropout2d(0.3), nn.Flatten(), nn.Dropout(0.3),
                         nn.Linear(WIDTH * (shape[1] - 2) * (shape[2] - 2), outputs))  # fmt: skip


class FunctionalDropout(Tokens):
    """F.dropout in forward."""

    def mix(self, t: Tensor) -> Tensor:
        return F.dropout(t, 0.3, self.training)


class DropPath(Tokens):
    """Residual branches dropped per image."""

    def more(self) -> None:
        self.layer = nn.Linear(WIDTH, WIDTH)

    def mix(self, t: Tensor) -> Tensor:
        return t + drop_path(self.layer(t), 0.3, self.training)


class LayerDrop(Tokens):
    """A layer left out as Python's random decides."""

    def more(self) -> None:
        self.layer = nn.Linear(WIDTH, WIDTH)

    def mix(self, t: Tensor) -> Tensor:
        if self.training and random.random() < 0.5:
            return t
        return t + torch.tanh(self.layer(t))


class Noise(Tokens):
    """Noise in training and in predictions."""

    def mix(self, t: Tensor) -> Tensor:
        return t + 0.1 * torch.randn_like(t)


class OwnGenerator(Tokens):
    """Noise from its own generator, which no seed reaches."""

    def more(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def mix(self, t: Tensor) -> Tensor:
        return t + 0.1 * torch.randn(t.shape, generator=self.generator)


# -------------------------------------------------------------------------------- parameters and buffers


class Tied(Tokens):
    """Two layers that share their weight."""

    def more(self) -> None:
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.second.weight = self.first.weight

    def mix(self, t: Tensor) -> Tensor:
        out: Tensor = self.second(torch.tanh(self.first(t)))
        return out


class Frozen(Kind):
    """A body with requires_grad=False."""

    def make(self) -> None:
        super().make()
        self.conv.requires_grad_(False)


class Unused(Kind):
    """A layer that forward does not call."""

    def make(self) -> None:
        super().make()
        self.unused = nn.Linear(3, 3)


class InPlace(Kind):
    """Operations in place, on the input too."""

    def maps(self, x: Tensor) -> Tensor:
        x.sub_(0.5).mul_(2.0)
        out: Tensor = self.conv(x)
        return F.relu_(out.mul_(1.5))


def lazy(shape: Shape, outputs: int) -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(WIDTH, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(outputs))


class Fourier(Kind):
    """A complex filter of frequencies."""

    def make(self) -> None:
        super().make()
        self.filter = nn.Parameter(torch.ones(self.shape[1], self.shape[2] // 2 + 1, dtype=torch.complex64))

    def maps(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=x.shape[-2:]))
        return out


class RunningMean(Kind):
    """A buffer that forward changes."""

    def make(self) -> None:
        super().make()
        self.register_buffer("mean", torch.zeros(WIDTH))

    def maps(self, x: Tensor) -> Tensor:
        out = F.relu(self.conv(x))
        self.mean.mul_(0.9).add_(0.1 * out.detach().mean((0, 2, 3)))
        return out - self.mean[:, None, None]


class RandomFeatures(Tokens):
    """A constant buffer, drawn when the network is made."""

    def more(self) -> None:
        self.register_buffer("projection", torch.randn(WIDTH, WIDTH))

    def mix(self, t: Tensor) -> Tensor:
        return torch.cos(t @ self.projection)


class Spectral(Tokens):
    """spectral_norm and weight_norm, as parametrizations."""

    def more(self) -> None:
        self.first = nn.utils.parametrizations.spectral_norm(nn.Linear(WIDTH, WIDTH))
        self.second = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def mix(self, t: Tensor) -> Tensor:
        out: Tensor = self.second(F.relu(self.first(t)))
        return out


class Remembers(Tokens):
    """A hidden state in an attribute, carried from call to call."""

    def more(self) -> None:
        self.hidden = torch.zeros(WIDTH)

    def mix(self, t: Tensor) -> Tensor:
        self.hidden = 0.5 * self.hidden + t.detach().mean((0, 1))
        return t + self.hidden


class Clamps(Kind):
    """Weights bounded by forward itself."""

    def maps(self, x: Tensor) -> Tensor:
        self.conv.weight.data.clamp_(-0.05, 0.05)
        return super().maps(x)


# -------------------------------------------------------------------------------- in forward


class Branches(Tokens):
    """Control flow that depends on values."""

    def mix(self, t: Tensor) -> Tensor:
        return t * 2 if float(t.mean()) > 0 else t - 1


class _Sign(torch.autograd.Function):
    """The sign, with the gradient of the identity (straight through)."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
        """Save nothing."""

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:
        """Return the gradient as it is."""
        return g


class StraightThrough(Tokens):
    """An autograd.Function of the user's own."""

    def mix(self, t: Tensor) -> Tensor:
        out: Tensor = _Sign.apply(t)
        return out + 0.1 * t


class Levels(nn.Module):
    """Pixels as words: an embedding of eight levels of grey."""

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(8, 4), nn.Linear(4 * shape[1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.embed((x * 7.99).long()).mean((1, 3)).flatten(1))
        return out


class Hooked(Kind):
    """A forward hook that changes an output."""

    def make(self) -> None:
        super().make()
        self.conv.register_forward_hook(lambda module, inputs, output: output.tanh())


class WholeBatch(Kind):
    """Normalised by its batch in its own code."""

    def maps(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (x - x.mean(0, keepdim=True)) / (x.std() + 1e-3)


class Autocast(Kind):
    """A body in bfloat16 by autocast."""

    def maps(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = super().maps(x)
        return x.float()


def half_precision(shape: Shape, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], outputs)).to(torch.bfloat16)


class ListOutput(Kind):
    """Outputs in a list."""

    def forward(self, x: Tensor) -> Tensor:
        return [super().forward(x)]  # type: ignore[return-value]


def scripted(shape: Shape, outputs: int) -> nn.Module:
    return torch.jit.script(linear(shape, outputs))  # type: ignore[no-any-return]


KINDS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "linear": linear,
    "convolution, `view`": View,
    "convolution, `permute` and `view`": ViewOfColumns,
    "BatchNorm": with_batch_norm,
    "MobileNet block": Depthwise,
    "U-Net": Transposed,
    "Conv1d over a signal": convolved_signal,
    "GroupNorm": grouped(lambda width: nn.GroupNorm(2, width)),
    "InstanceNorm": grouped(lambda width: nn.InstanceNorm2d(width, affine=True)),
    "InstanceNorm, running averages": grouped(lambda width: nn.InstanceNorm2d(width, track_running_stats=True)),
    "LayerNorm (ConvNeXt block)": ConvNeXt,
    "ResNet, torchvision's style": ResNet,
    "ResNet, timm's style": TimmResNet,
    "DenseNet": DenseNet,
    "DenseNet, `checkpoint`": Checkpointed,
    "LSTM": recurrent(lambda: nn.LSTM(WIDTH, WIDTH, batch_first=True)),
    "LSTM, two ways, dropout": recurrent(lambda: nn.LSTM(WIDTH, WIDTH // 2, 2, True, True, 0.3, True)),
    "GRU": recurrent(lambda: nn.GRU(WIDTH, WIDTH, batch_first=True)),
    "RNN": recurrent(lambda: nn.RNN(WIDTH, WIDTH, batch_first=True)),
    "MultiheadAttention, dropout": Attention,
    "TransformerEncoder": Transformer,
    "ViT, timm's style": ViT,
    "MLP-Mixer": Mixer,
    "`nn.Dropout`, Dropout2d": with_dropout,
    "`F.dropout`": FunctionalDropout,
    "DropPath": DropPath,
    "LayerDrop by Python's `random`": LayerDrop,
    "noise in predictions too": Noise,
    "noise from its own generator": OwnGenerator,
    "tied weights": Tied,
    "frozen body": Frozen,
    "unused layer": Unused,
    "in-place operations": InPlace,
    "lazy layers": lazy,
    "complex parameters": Fourier,
    "buffer changed in `forward`": RunningMean,
    "random constant buffer": RandomFeatures,
    "spectral and weight norm": Spectral,
    "state in an attribute": Remembers,
    "weights clamped in `forward`": Clamps,
    "control flow by values": Branches,
    "own `autograd.Function`": StraightThrough,
    "embedding of levels": Levels,
    "forward hook": Hooked,
    "own normalisation by the batch": WholeBatch,
    "autocast in `forward`": Autocast,
    "half-precision parameters": half_precision,
    "list of outputs": ListOutput,
    "`torch.jit.script`": scripted,
}
