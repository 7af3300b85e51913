"""Full context embeddings: every embedding is adjusted to its support set.

A bidirectional LSTM runs over the support set; an LSTM with attention over the support set reads it K times for each
query. Vinyals et al. 2016 (arXiv 1606.04080), section 2.1.2 and appendix A.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FullContextEmbedding(nn.Module):
    """Full context embeddings of T tasks at once: one LSTM over the support set, one that reads it for each query.

    It has 28 E^2 + 24 E parameters for embeddings of width E.

    Example:
        >>> import torch
        >>> context = FullContextEmbedding(width=64)
        >>> support, query = torch.zeros(4, 5, 64), torch.zeros(4, 15, 64)  # 4 tasks of 5 support images, 15 queries
        >>> [tuple(t.shape) for t in context(support, query, reads=3)]
        [(4, 5, 64), (4, 15, 64)]
    """

    def __init__(self, width: int) -> None:
        """Draw the weights uniformly within 1 / sqrt(E), PyTorch's default for LSTMs.

        Args:
            width: E, the size of the embeddings it takes and returns.
        """
        super().__init__()
        self.over_support = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.read = nn.LSTMCell(width, width)
        # The cell's hidden state concatenates its last output and what it read: twice the width of its output.
        self.read.weight_hh = nn.Parameter(torch.empty(4 * width, 2 * width))
        nn.init.uniform_(self.read.weight_hh, -(width**-0.5), width**-0.5)

    def forward(self, support: Tensor, query: Tensor, reads: int) -> tuple[Tensor, Tensor]:
        """Return the support and query embeddings in context, shaped like the inputs.

        Args:
            support: (T, S, E) embeddings, in the order in which the LSTM runs over them.
            query: (T, Q, E) embeddings; no query influences another.
            reads: K, at least 1.
        """
        forwards, backwards = self.over_support(support)[0].chunk(2, dim=2)
        support = forwards + backwards + support  # g(x_i) = h_i forwards + h_i backwards + g'(x_i)
        return support, self._attend(support, query, reads)

    def _attend(self, support: Tensor, query: Tensor, reads: int) -> Tensor:
        """Return the queries' embeddings (T, Q, E) after ``reads`` reads (equations 3 to 6).

        h_k = LSTM(f', [h_(k-1), r_(k-1)], c_(k-1)) + f', with r_k = attention(h_k) over g. As h_0 = 0, the first read
        weights all support images alike.
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
