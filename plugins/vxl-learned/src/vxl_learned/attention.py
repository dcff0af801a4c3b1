"""Attention of queries to keys of another width."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention.

    Args:
        width: channels of the queries and of what is given back.
        keys: channels of what is attended to.
        inner: channels of all heads together.
        heads: must divide ``inner``.
        bias: of all four linear maps.
    """

    def __init__(self, width: int, keys: int, inner: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, inner, bias=bias)
        self.key = nn.Linear(keys, inner, bias=bias)
        self.value = nn.Linear(keys, inner, bias=bias)
        self.out = nn.Linear(inner, width, bias=bias)

    def forward(self, queries: Tensor, keys: Tensor, open_: Tensor | None = None, *, look: bool = False) -> Tensor:
        """``queries [G, K, C]`` over ``keys [G, N, E]``, of which those where ``open_ [G, N]`` is True.

        Returns:
            ``[G, K, C]``, or where ``look`` the attention itself, ``[G, K, N]``, the mean over heads.
        """
        q, k = self._split(self.query(queries)), self._split(self.key(keys))
        mask = None if open_ is None else open_[:, None, None]
        if look:
            return self._mean_attention(q, k, mask)
        v = self._split(self.value(keys))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        g, n, inner = x.shape
        return x.view(g, n, self.heads, inner // self.heads).transpose(1, 2)

    def _mean_attention(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        total = q.new_zeros(q.shape[0], q.shape[2], k.shape[2])
        for head in range(self.heads):  # one at a time: all at once are as many times the memory
            scores = q[:, head] @ k[:, head].mT * q.shape[-1] ** -0.5
            total += (scores if mask is None else scores.masked_fill(~mask[:, 0], float("-inf"))).softmax(-1)
        return total / self.heads


def joined(a: Tensor, b: Tensor, open_: Tensor) -> tuple[Tensor, Tensor]:
    """``a [G, N, C]`` and ``b [G, M, C]`` as one sequence, and which of it is open: ``open_ [G, N]`` and all of b."""
    return torch.cat([a, b], 1), F.pad(open_, (0, b.shape[1]), value=True)
