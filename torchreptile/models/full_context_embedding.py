"""Full context embeddings: every image is embedded in the light of the whole support set.

Support images by a bidirectional LSTM over the set, queries by an LSTM that attends to it for a number of reads.
Vinyals et al. 2016, section 2.1.2 and appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FullContextEmbedding(nn.Module):
    """The two LSTMs of width E, for T tasks at once."""

    def __init__(self, width: int) -> None:
        """``width``: E, of the embeddings that come in and go out."""
        super().__init__()
        self.over_support = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.read = nn.LSTMCell(width, width)
        # The cell's hidden state is its last output and what it read, side by side: twice as wide as its output.
        self.read.weight_hh = nn.Parameter(torch.empty(4 * width, 2 * width))
        nn.init.uniform_(self.read.weight_hh, -(width**-0.5), width**-0.5)

    def forward(self, support: Tensor, query: Tensor, reads: int) -> tuple[Tensor, Tensor]:
        """(T, S, E) and (T, Q, E) embeddings -> the same shapes, in context.

        Args:
            support: in the order in which the LSTM goes through it.
            query: each is read for by itself.
            reads: K, at least 1.
        """
        forwards, backwards = self.over_support(support)[0].chunk(2, dim=2)
        support = forwards + backwards + support  # g(x_i) = h_i forwards + h_i backwards + g'(x_i)
        return support, self._attend(support, query, reads)

    def _attend(self, support: Tensor, query: Tensor, reads: int) -> Tensor:
        """Equations 3 to 6: h_k = LSTM(f', [h_(k-1), r_(k-1)], c_(k-1)) + f', r_k = attention(h_k) over g.

        The first read has no output yet to attend by (h_0 = 0): all support images count alike.
        """
        output, cell = torch.zeros_like(query), torch.zeros_like(query)
        from_query = query @ self.read.weight_ih.t() + self.read.bias_ih + self.read.bias_hh  # the same at every read
        for _ in range(reads):
            attention = (output @ support.transpose(1, 2)).softmax(2)  # (T, Q, S)
            hidden = torch.cat([output, attention @ support], dim=2)
            input_gate, forget_gate, change, output_gate = (from_query + hidden @ self.read.weight_hh.t()).chunk(4, 2)
            cell = forget_gate.sigmoid() * cell + input_gate.sigmoid() * change.tanh()
            output = output_gate.sigmoid() * cell.tanh() + query
        return output
