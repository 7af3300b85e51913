"""The memory-augmented network of Santoro et al. 2016: an LSTM controller with an external memory.

At every step the controller receives an image and the label of the image before it. It produces keys, writes them to
rows of the memory that were just read or are used least, and reads the rows most similar to the keys (section 3). All
state belongs to one episode; T episodes run in parallel.

Shapes: T episodes, H units, N rows of W numbers, R heads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchreptile.models.built_in import BuiltInNetwork, Params, Shape, image_sizes

INPUT_SIZE = 20  # pixels: the paper's images are 20 x 20
EMPTY = 1e-6  # fills a fresh memory: a row of zeros has no direction
SMALL = 1e-24  # added to a squared length before its root is taken


@dataclass(frozen=True, eq=False)
class MemoryState:
    """Controller and memory of T episodes between two images.

    Attributes:
        cell: (T, H) the controller's cell.
        output: (T, H + R * W) the controller's output followed by what was read.
        memory: (T, N, W) the rows.
        read: (T, R, N) each head's last read weights over the rows.
        usage: (T, N) how much each row was read and written recently.
    """

    cell: Tensor
    output: Tensor
    memory: Tensor
    read: Tensor
    usage: Tensor

    def repeated(self, times: int) -> MemoryState:
        """Return the state with each episode repeated ``times`` times in a row: (T, ...) -> (T * times, ...)."""
        return MemoryState(*(getattr(self, field.name).repeat_interleave(times, 0) for field in fields(self)))


def lookup(keys: Tensor, memory: Tensor) -> Tensor:
    """Return the read weights: the softmax over rows of the cosine of key and row (equations 3 and 4).

    Args:
        keys: (T, R, W).
        memory: (T, N, W).

    Returns:
        (T, R, N) weights that sum to 1 over the rows.
    """
    keys = keys * (keys.square().sum(2, keepdim=True) + SMALL).rsqrt()
    lengths = (memory.square().sum(2) + SMALL).rsqrt()
    return torch.softmax(torch.bmm(keys, memory.transpose(1, 2)) * lengths.unsqueeze(1), 2)


def least_used(usage: Tensor, heads: int) -> Tensor:
    """Return the rows with the smallest usage, smallest first, ties by index: (T, N) -> (T, heads) (equation 6)."""
    return usage.argsort(dim=1, stable=True)[:, :heads]


def write(memory: Tensor, vectors: Tensor, gates: Tensor, read: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Erase the least used row, then add the vectors to the rows (equations 7 and 8).

    Args:
        memory: (T, N, W).
        vectors: (T, R, W), the keys in the paper.
        gates: (T, R, 1) from 0 (write to the least used rows) to 1 (write where the head last read).
        read: (T, R, N) the heads' last read weights.
        rows: (T, R) indices of the least used rows.

    Returns:
        The new memory (T, N, W) and the write weights (T, R, N).
    """
    least = torch.zeros_like(read[:, 0]).scatter(1, rows, 1.0)
    weights = gates * read + (1 - gates) * least.unsqueeze(1)
    retained = torch.ones_like(least).scatter(1, rows[:, :1], 0.0)
    return torch.baddbmm(memory * retained.unsqueeze(2), weights.transpose(1, 2), vectors), weights


class MANNNetwork(BuiltInNetwork):
    """The memory-augmented network (MANN) of Santoro et al. 2016, section 3, which reads T episodes in parallel.

    ``image``, ``label`` and ``back`` map the image, the previous label and the controller's last output to its four
    gates; ``keys`` and ``gates`` address the memory, and ``vectors``, if any, are written to it; ``head`` maps the
    controller's output and the rows read to logits.

    Example:
        >>> import torch
        >>> network = MANNNetwork((1, 28, 28), way=5, units=20, slots=16, width=8)
        >>> network.initialise(torch.Generator().manual_seed(0))
        >>> params = dict(network.named_parameters())
        >>> images, labels = torch.rand(2, 6, 1, 28, 28), torch.zeros(2, 6, 5)  # 2 episodes of 6 images
        >>> logits, state = network.present(params, images, labels, network.fresh(images, 2))
        >>> tuple(logits.shape), tuple(state.memory.shape)
        ((2, 6, 5), (2, 16, 8))
    """

    def __init__(
        self,
        image_shape: Shape,
        way: int,
        units: int = 200,
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.99,
        separate_write: bool = False,
        read_first: bool = False,
    ) -> None:
        """Build the network; call :meth:`initialise` to draw its weights.

        Args:
            image_shape: (C, H, W); images larger than 20 x 20 are scaled down to it.
            way: classes of an episode.
            units: H, units of the controller.
            slots: N, rows of the memory.
            width: W, numbers in a row.
            heads: R, keys written and read per step.
            decay: the share of a row's usage that remains from step to step, 0 to 1.
            separate_write: whether separate vectors are written, rather than the keys.
            read_first: whether keys are compared with the memory before it is written to, rather than after.
        """
        super().__init__()
        channels, height, breadth = image_sizes(image_shape, "the network of mann")
        self.separate_write, self.read_first = separate_write, read_first
        self.way, self.units, self.slots, self.width, self.heads = way, units, slots, width, heads
        self.decay, self.size = decay, (min(height, INPUT_SIZE), min(breadth, INPUT_SIZE))
        outputs = units + heads * width
        self.image = nn.Linear(channels * self.size[0] * self.size[1], 4 * units)
        self.label = nn.Linear(way, 4 * units, bias=False)
        self.back = nn.Linear(outputs, 4 * units, bias=False)
        self.keys = nn.Linear(units, heads * width)
        self.vectors = nn.Linear(units, heads * width) if separate_write else None
        self.gates = nn.Linear(units, heads)
        self.head = nn.Linear(outputs, way)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw Glorot-uniform weights and zero biases, with two exceptions that speed up early training.

        The forget gate's bias is 1, so that the cell is retained at first. A label is one number among hundreds of
        inputs, which Glorot's rule would drown among the pixels: its weights are standard normal.
        """
        for layer in (self.image, self.back, self.keys, self.vectors, self.gates, self.head):
            if layer is None:
                continue
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.label.weight, generator=generator)
        with torch.no_grad():
            self.image.bias[self.units : 2 * self.units] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, way) of images (B, C, H, W), each as the first image of its own episode."""
        params: Params = dict(self.named_parameters())
        logits, _ = self.present(params, x.unsqueeze(1), x.new_zeros(len(x), 1, self.way), self.fresh(x, len(x)))
        return logits.squeeze(1)

    def fresh(self, like: Tensor, episodes: int) -> MemoryState:
        """Return the state of ``episodes`` episodes before their first image.

        The memory is empty, and only its first row counts as used.

        Args:
            like: a tensor with the dtype and device to use.
            episodes: T.
        """
        read, usage = like.new_zeros(episodes, self.heads, self.slots), like.new_zeros(episodes, self.slots)
        read[:, :, 0], usage[:, 0] = 1, 1
        return MemoryState(
            like.new_zeros(episodes, self.units),
            like.new_zeros(episodes, self.units + self.heads * self.width),
            like.new_full((episodes, self.slots, self.width), EMPTY),
            read,
            usage,
        )

    def present(self, params: Params, x: Tensor, before: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """Present the next S images of T episodes, one after another.

        Args:
            params: this module's parameters by name.
            x: (T, S, C, H, W) images.
            before: (T, S, way) the label presented with each image: that of the image before it, one-hot; zeros for
                none.
            state: the state before; not modified.

        Returns:
            Logits (T, S, way), and the state afterwards.
        """
        # What does not depend on the state is computed for all steps at once.
        inputs = F.linear(self._pixels(x), params["image.weight"], params["image.bias"])
        inputs = inputs + F.linear(before, params["label.weight"])
        back = params["back.weight"].t().contiguous()
        addressing = ["keys", "vectors", "gates"] if self.separate_write else ["keys", "gates"]
        address = torch.cat([params[f"{name}.weight"] for name in addressing]).t().contiguous()
        bias = torch.cat([params[f"{name}.bias"] for name in addressing])
        outputs = []
        for step in inputs.unbind(1):
            state = self._step(step, back, address, bias, state)
            outputs.append(state.output)
        return F.linear(torch.stack(outputs, 1), params["head.weight"], params["head.bias"]), state

    def _step(self, inputs: Tensor, back: Tensor, address: Tensor, bias: Tensor, state: MemoryState) -> MemoryState:
        """Return the state after one more image: controller, write, read."""
        admit, forget, new, show = torch.addmm(inputs, state.output, back).chunk(4, 1)
        cell = forget.sigmoid() * state.cell + admit.sigmoid() * new.tanh()
        hidden = show.sigmoid() * cell.tanh()
        addressed = torch.addmm(bias, hidden, address)
        keys, *vectors = addressed[:, : -self.heads].tanh().view(len(hidden), -1, self.heads, self.width).unbind(1)
        gates = addressed[:, -self.heads :].sigmoid().unsqueeze(2)
        rows = least_used(state.usage, self.heads)
        memory, written = write(state.memory, vectors[0] if vectors else keys, gates, state.read, rows)
        read = lookup(keys, state.memory if self.read_first else memory)
        # Usage only ranks the rows, so no gradient flows through it.
        usage = self.decay * state.usage + (read.detach().sum(1) + written.detach().sum(1))
        output = torch.cat([hidden, torch.bmm(read, memory).flatten(1)], 1)
        return MemoryState(cell, output, memory, read, usage)

    def _pixels(self, x: Tensor) -> Tensor:
        """Return images (T, S, C, H, W) as (T, S, pixels), scaled to the input size, with paper 0 and ink 1."""
        x = 1 - x
        if x.shape[-2:] != self.size:
            small = F.interpolate(x.flatten(0, 1), self.size, mode="bilinear", antialias=True, align_corners=False)
            x = small.view(*x.shape[:2], *small.shape[1:])
        return x.flatten(2)
