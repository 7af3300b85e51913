"""The memory-augmented network of Santoro et al. 2016: an LSTM beside a memory that it writes to and reads from.

At every step the controller sees an image and the label of the image before it. It makes keys, writes them to rows
of the memory that were just read or are used least, and reads rows by how like the keys they are (section 3). All
state belongs to one episode; T episodes run side by side.

Shapes: T episodes, H units, N rows of W numbers, R heads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchreptile.models.conv4.network import Params

SEEN_SIZE = 20  # pixels: the paper's images are 20 x 20
EMPTY = 1e-6  # in every row of a fresh memory: one of zeros has no direction
SMALL = 1e-24  # under the root of a squared length


@dataclass(frozen=True, eq=False)
class MemoryState:
    """What an episode has left behind up to now.

    Attributes:
        cell: (T, H) the controller's.
        output: (T, H + R * W) the controller's output and, after it, what was read.
        memory: (T, N, W).
        read: (T, R, N) how each head's reading was spread over the rows.
        usage: (T, N) how much each row was read and written lately.
    """

    cell: Tensor
    output: Tensor
    memory: Tensor
    read: Tensor
    usage: Tensor

    def repeated(self, times: int) -> MemoryState:
        """Every episode so many times in a row: (T, ...) -> (T * times, ...)."""
        return MemoryState(*(getattr(self, field.name).repeat_interleave(times, 0) for field in fields(self)))


def lookup(keys: Tensor, memory: Tensor) -> Tensor:
    """How reading is spread over the rows: softmax of the cosines (equations 3 and 4).

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
    """(T, heads) the rows with the smallest usage, the smallest first (equation 6); of equal ones the first."""
    return usage.argsort(dim=1, stable=True)[:, :heads]


def write(memory: Tensor, keys: Tensor, gates: Tensor, read: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Wipe the least used row, then add the keys to rows (equations 7 and 8).

    Args:
        memory: (T, N, W).
        keys: (T, R, W).
        gates: (T, R, 1) from 0 (write to the least used rows) to 1 (write where this head last read).
        read: (T, R, N) where the heads last read.
        rows: (T, R) the least used rows.

    Returns:
        The memory, and how each head's writing is spread over the rows, (T, R, N).
    """
    chosen = torch.zeros_like(read[:, 0]).scatter(1, rows, 1.0)
    writing = gates * read + (1 - gates) * chosen.unsqueeze(1)
    kept = torch.ones_like(chosen).scatter(1, rows[:, :1], 0.0)
    return torch.baddbmm(memory * kept.unsqueeze(2), writing.transpose(1, 2), keys), writing


class MANNNetwork(nn.Module):
    """The weights, and one step of T episodes.

    ``image``, ``label`` and ``back`` make the controller's four gates of the image, the label before it, and its own
    last output; ``keys`` and ``gates`` address the memory; ``head`` makes logits.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        way: int,
        units: int = 200,
        slots: int = 128,
        width: int = 40,
        heads: int = 4,
        decay: float = 0.99,
    ) -> None:
        """All weights zero; call :meth:`initialise` to draw them.

        Args:
            image_shape: (C, H, W).
            way: labels.
            units: of the controller.
            slots, width: rows of the memory, and numbers in a row.
            heads: keys at a time.
            decay: what remains of a row's usage from step to step.
        """
        super().__init__()
        channels, height, breadth = image_shape
        self.way, self.units, self.slots, self.width, self.heads = way, units, slots, width, heads
        self.decay, self.size = decay, (min(height, SEEN_SIZE), min(breadth, SEEN_SIZE))
        outputs = units + heads * width
        self.image = nn.Linear(channels * self.size[0] * self.size[1], 4 * units)
        self.label = nn.Linear(way, 4 * units, bias=False)
        self.back = nn.Linear(outputs, 4 * units, bias=False)
        self.keys = nn.Linear(units, heads * width)
        self.gates = nn.Linear(units, heads)
        self.head = nn.Linear(outputs, way)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw Glorot-uniform weights and zero biases, but for two that speed up the beginning.

        The forget gate's bias is 1: remember at first. What is told of a label is one number among hundreds, which
        Glorot's rule would drown among the pixels: its weights are standard normal.
        """
        for layer in (self.image, self.back, self.keys, self.gates, self.head):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.label.weight, generator=generator)
        with torch.no_grad():
            self.image.bias[self.units : 2 * self.units] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits (B, way): each image as the first of an episode of its own."""
        params: Params = dict(self.named_parameters())
        logits, _ = self.present(params, x.unsqueeze(1), x.new_zeros(len(x), 1, self.way), self.fresh(x, len(x)))
        return logits.squeeze(1)

    def fresh(self, like: Tensor, episodes: int) -> MemoryState:
        """The state before the first image: nothing remembered, the first row the only one that counts as used."""
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
        """Show T episodes their next images, one after another.

        Args:
            params: this module's, by name.
            x: (T, S, C, H, W) images.
            before: (T, S, way) what is told with each image: the label of the one before, one-hot; zeros for none.
            state: left as it was.

        Returns:
            Logits (T, S, way), and the state afterwards.
        """
        # What does not depend on the state is computed for all steps at once.
        seen = F.linear(self._pixels(x), params["image.weight"], params["image.bias"])
        seen = seen + F.linear(before, params["label.weight"])
        back = params["back.weight"].t().contiguous()
        address = torch.cat([params["keys.weight"], params["gates.weight"]]).t().contiguous()
        bias = torch.cat([params["keys.bias"], params["gates.bias"]])
        outputs = []
        for step in seen.unbind(1):
            state = self._step(step, back, address, bias, state)
            outputs.append(state.output)
        return F.linear(torch.stack(outputs, 1), params["head.weight"], params["head.bias"]), state

    def _step(self, seen: Tensor, back: Tensor, address: Tensor, bias: Tensor, state: MemoryState) -> MemoryState:
        """One image: controller, write, read."""
        admit, forget, new, show = torch.addmm(seen, state.output, back).chunk(4, 1)
        cell = forget.sigmoid() * state.cell + admit.sigmoid() * new.tanh()
        hidden = show.sigmoid() * cell.tanh()
        addressed = torch.addmm(bias, hidden, address)
        keys = addressed[:, : self.heads * self.width].tanh().view(-1, self.heads, self.width)
        gates = addressed[:, self.heads * self.width :].sigmoid().unsqueeze(2)
        rows = least_used(state.usage, self.heads)
        memory, writing = write(state.memory, keys, gates, state.read, rows)
        read = lookup(keys, memory)
        # Usage only ranks the rows, so no gradient goes through it.
        usage = self.decay * state.usage + (read.detach().sum(1) + writing.detach().sum(1))
        output = torch.cat([hidden, torch.bmm(read, memory).flatten(1)], 1)
        return MemoryState(cell, output, memory, read, usage)

    def _pixels(self, x: Tensor) -> Tensor:
        """(T, S, C, H, W) -> (T, S, pixels): brought to the size seen, paper 0 and ink 1."""
        x = 1 - x
        if x.shape[-2:] != self.size:
            small = F.interpolate(x.flatten(0, 1), self.size, mode="bilinear", antialias=True, align_corners=False)
            x = small.view(*x.shape[:2], *small.shape[1:])
        return x.flatten(2)
