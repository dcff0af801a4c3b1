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

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        open_: Tensor | None = None,
        *,
        look: bool = False,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        """``queries [G, K, C]`` over ``keys [G, N, E]``, of which those where ``open_ [G, N]`` is True.

        Args:
            queries: attend.
            keys: are attended to.
            open_: None is all of them.
            look: give the attention itself, and compute nothing else.
            seen: takes the attention, without gradient, beside what is given back.

        Returns:
            ``[G, K, C]``, or where ``look`` the attention itself, ``[G, K, N]``, the mean over heads.
        """
        q = self._split(self.query(queries))
        mask = None  # added to what is compared: minus infinity where a key is not open
        if open_ is not None:
            mask = q.new_zeros(open_.shape).masked_fill_(~open_, float("-inf"))[:, None, None]
        if look:
            return self._mean_attention(q, self._split(self.key(keys)), mask)
        few = q.shape[2] < q.shape[3] and q.dtype == torch.float32 and q.device.type == "cpu"
        mixed = (self._mixed_wide if few else self._mixed)(q, keys, mask, seen)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        g, n, inner = x.shape
        return x.view(g, n, self.heads, inner // self.heads).transpose(1, 2)

    def _mixed(self, q: Tensor, keys: Tensor, mask: Tensor | None, seen: list[Tensor] | None) -> Tensor:
        """``q [G, heads, K, C']`` over the keys: values, mixed, in the shape of ``q``."""
        weight = torch.cat([self.key.weight, self.value.weight])  # one product for both is quicker than two
        bias = None if self.key.bias is None else torch.cat([self.key.bias, self.value.bias])
        k, v = map(self._split, F.linear(keys, weight, bias).chunk(2, 2))
        if seen is not None:
            seen.append(self._mean_attention(q, k, mask))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def _mixed_wide(self, q: Tensor, keys: Tensor, mask: Tensor | None, seen: list[Tensor] | None) -> Tensor:
        """The same where queries are fewer than a head has channels.

        Then it is less work to take the queries to where the keys are than all keys to where the queries are: every
        head compares them with the keys as they are, and what is mixed are keys, which become values at the end.
        """
        each = (self.heads, q.shape[-1], keys.shape[-1])
        to_keys, to_values = self.key.weight.view(each), self.value.weight.view(each)
        q = q * q.shape[-1] ** -0.5
        wide = torch.einsum("ghkc,hce->ghke", q, to_keys)
        scores = (wide.flatten(1, 2) @ keys.mT).unflatten(1, q.shape[1:3])
        if self.key.bias is not None:  # adds the same to all that a query compares, yet is given its gradient
            scores = scores + torch.einsum("ghkc,hc->ghk", q, self.key.bias.view(each[:2]))[..., None]
        attention = (scores if mask is None else scores + mask).softmax(-1)
        if seen is not None:
            seen.append(attention.detach().mean(1))
        mixed = (attention.flatten(1, 2) @ keys).unflatten(1, q.shape[1:3])
        values = torch.einsum("ghke,hce->ghkc", mixed, to_values)
        return values if self.value.bias is None else values + self.value.bias.view(self.heads, 1, -1)

    @torch.no_grad()
    def _mean_attention(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        total = q.new_zeros(q.shape[0], q.shape[2], k.shape[2])
        for head in range(self.heads):  # one at a time: all at once are as many times the memory
            scores = (q[:, head] * q.shape[-1] ** -0.5) @ k[:, head].mT
            total += (scores if mask is None else scores.add_(mask[:, 0])).softmax(-1)
        return total / self.heads


def joined(a: Tensor, b: Tensor, open_: Tensor) -> tuple[Tensor, Tensor]:
    """``a [G, N, C]`` and ``b [G, M, C]`` as one sequence, and which of it is open: ``open_ [G, N]`` and all of b."""
    return torch.cat([a, b], 1), F.pad(open_, (0, b.shape[1]), value=True)
